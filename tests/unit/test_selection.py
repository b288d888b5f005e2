"""Which files of a repository are downloaded: on the listings of repositories as they are."""

import pytest

from lazynb.hub.selection import RemoteFile, select

TEXT = ["README.md", ".gitattributes", "config.json", "tokenizer.json", "LICENSE"]


def chosen(paths, form="safetensors", wanted=""):
    files = [RemoteFile(path, size=1000 + number) for number, path in enumerate(paths)]
    return {file.path for file in select(files, form, wanted)}


@pytest.mark.parametrize(
    ("listing", "needed"),
    [
        pytest.param(
            [*TEXT, "model.safetensors", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx"],
            {"config.json", "tokenizer.json", "LICENSE", "model.safetensors"},
            id="the same weights for every framework",
        ),
        pytest.param(
            [
                "config.json",
                "pytorch_model-00001-of-00002.bin",
                "pytorch_model-00002-of-00002.bin",
                "pytorch_model.bin.index.json",
            ],
            {"config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"}
            | {"pytorch_model.bin.index.json"},
            id="only the old format",
        ),
        pytest.param(
            [
                "config.json",
                "params.json",
                "consolidated.safetensors",
                "tokenizer.model",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
            {"config.json", "tokenizer.model", "model-00001-of-00002.safetensors"}
            | {"model-00002-of-00002.safetensors"},
            id="Mistral: once in its own format",
        ),
        pytest.param(
            [
                "config.json",
                "model.safetensors",
                "original/consolidated.00.pth",
                "original/tokenizer.model",
            ],
            {"config.json", "model.safetensors"},
            id="Llama: once in its own folder",
        ),
        pytest.param(
            [
                "config.json",
                "modules.json",
                "1_Pooling/config.json",
                "pytorch_model.bin",
                "colbert.jpg",
                "sparse_linear.pt",
                "colbert_linear.pt",
                "onnx/model.onnx_data",
                "sentencepiece.bpe.model",
            ],
            {"config.json", "modules.json", "1_Pooling/config.json", "pytorch_model.bin"}
            | {"sparse_linear.pt", "colbert_linear.pt", "sentencepiece.bpe.model"},
            id="BGE-M3: its heads are no second copy",
        ),
        pytest.param(
            ["config.json", "model.safetensors", "sparse_linear.pt", "pytorch_model.bin"],
            {"config.json", "model.safetensors", "sparse_linear.pt"},
            id="heads beside safetensors",
        ),
        pytest.param(
            [
                "model_index.json",
                "v1-5-pruned.safetensors",
                "v1-5-pruned.ckpt",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "unet/diffusion_pytorch_model.bin",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
                "tokenizer/vocab.json",
            ],
            {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
            | {
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
                "tokenizer/vocab.json",
            },
            id="a diffusion model by its parts, in one precision",
        ),
        pytest.param(["README.md", "it-Q4_K_M.gguf"], set(), id="no such weights"),
    ],
)
def test_the_weights_come_once_with_what_is_read_beside_them(listing, needed):
    assert chosen(listing) == needed


GGUFS = ["README.md", "it-Q2_K.gguf", "it-Q4_K_M.gguf", "it-Q8_0.gguf", "mmproj-it-f16.gguf"]
SPLIT = [f"big-q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3)]


@pytest.mark.parametrize(
    ("listing", "wanted", "needed"),
    [
        (GGUFS, "", {"it-Q4_K_M.gguf"}),
        (GGUFS, "q8_0", {"it-Q8_0.gguf"}),
        (GGUFS, "it-Q2_K.gguf", {"it-Q2_K.gguf"}),
        (GGUFS, "Q3_K", set()),
        (["it-F16.gguf", "it-Q5_0.gguf"], "", {"it-F16.gguf"}),  # the smallest; here by its size
        ([*SPLIT, "big-q4_k_m.gguf"], "q8_0", set(SPLIT)),
    ],
)
def test_one_quantisation_comes_with_all_its_parts(listing, wanted, needed):
    assert chosen(listing, "gguf", wanted) == needed


def test_what_has_a_format_of_its_own_comes_whole_but_for_pictures_and_documents():
    listing = ["README.md", "asset/DVAE.safetensors", "config/path.yaml", "model.pt", "demo.png"]
    assert chosen(listing, "other") == {"asset/DVAE.safetensors", "config/path.yaml", "model.pt"}


@pytest.mark.parametrize(
    "path", ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", ""]
)
def test_a_path_that_leaves_the_folder_is_not_taken(path):
    assert chosen(["config.json", "model.safetensors", path]) == {
        "config.json",
        "model.safetensors",
    }
    assert chosen([path], "other") == set()
