// The page's side of a streaming answer.
//
// The kernel broadcasts what is new as custom messages {o, t, p, q, n}: text `t` from character `o` on, reasoning `q` from `p`,
// `n` tokens so far. The page's way back is a comm that the page opens, because the kernel serves that one even while the cell
// blocks: it reports the view, asks for text that is missing (after a reload, or when the server dropped messages), and stops.
// Text only ever becomes text nodes.
//
// When the answer ends, the kernel replaces this output by a plain one. JupyterLab drops that message in a page that was opened
// after the cell had begun; such a page asks for the plain output and puts it into the notebook itself.

const CSS = `
.lazynb-answer { font-family: var(--jp-content-font-family, sans-serif); font-size: var(--jp-content-font-size1, 14px);
  line-height: var(--jp-content-line-height, 1.6); color: var(--jp-content-font-color1, inherit); }
.lazynb-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.lazynb-thought { white-space: pre-wrap; overflow-wrap: anywhere; color: var(--jp-content-font-color2, #757575);
  font-size: 0.9em; max-height: 8em; overflow: auto; }
.lazynb-thought:empty, .lazynb-text:empty { display: none; }
.lazynb-meta { display: flex; justify-content: space-between; gap: 12px; margin-top: 4px;
  font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px);
  color: var(--jp-ui-font-color2, #757575); }
.lazynb-meta button { font: inherit; color: inherit; background: none; border: none; padding: 0 2px; cursor: pointer;
  text-decoration: underline; text-underline-offset: 2px; }
.lazynb-meta button:hover { color: var(--jp-ui-font-color1, #212121); }
.lazynb-meta button:focus-visible { outline: 1px solid var(--jp-brand-color1, #1976d2); }
`;

const MIME = "application/vnd.jupyter.widget-view+json";
const REPLACED = 1000; // ms that the kernel's own replacement may take

const answers = new Map(); // answer id -> what this page knows of it

function length(text) {
  let count = 0; // Python counts code points
  for (const _ of text) count += 1;
  return count;
}

class Live {
  constructor(model) {
    this.model = model;
    this.id = model.get("answer");
    this.parts = { text: { value: "", size: 0 }, thought: { value: "", size: 0 } };
    this.tokens = 0;
    this.first = 0;
    this.status = "";
    this.end = null;
    this.views = new Set();
    this.comm = null;
    this.asked = false;
    model.on("msg:custom", (message) => this.take(message));
    this.connect();
  }

  async connect() {
    try {
      const id = crypto.randomUUID();
      this.comm = await this.model.widget_manager._create_comm("lazynb.view", id, this.have());
      this.comm.on_msg((message) => {
        this.asked = false;
        this.take(message.content.data);
      });
    } catch (error) {
      console.warn("lazynb: this page cannot open a comm", error); // the kernel shows plain output instead
    }
  }

  have() {
    return { answer: this.id, text: this.parts.text.size, thought: this.parts.thought.size };
  }

  take({ o, t, p, q, n, s, e, settled }) {
    if (settled) this.settle(settled);
    const gap = this.add("text", o, t) | this.add("thought", p, q);
    if (gap && this.comm && !this.asked) {
      this.asked = true;
      this.comm.send(this.have());
    }
    if (n !== undefined) {
      this.tokens = n;
      this.first ||= performance.now();
    }
    if (s !== undefined) this.status = s;
    if (e !== undefined && !gap && this.end === null) {
      this.end = e;
      setTimeout(() => this.views.size && this.comm?.send({ answer: this.id, settle: true }), REPLACED);
    }
    this.paint();
  }

  // Put the plain output in the place of every view of this answer.
  async settle(data) {
    const manager = this.model.widget_manager;
    for (const cell of manager.context?.model?.cells ?? []) {
      for (let index = 0; index < (cell.outputs?.length ?? 0); index += 1) {
        const id = cell.outputs.get(index).data[MIME]?.model_id;
        if (!id || !manager.has_model(id) || (await (await manager.get_model(id))?.get("answer")) !== this.id) continue;
        cell.outputs.set(index, { output_type: "display_data", data, metadata: {} });
      }
    }
  }

  // Add a piece; returns whether something before it is missing.
  add(name, offset, piece) {
    if (offset === undefined) return false;
    const part = this.parts[name];
    if (offset > part.size) return true;
    const known = part.size - offset;
    const fresh = known ? [...piece].slice(known).join("") : piece;
    part.value += fresh;
    part.size += length(fresh);
    return false;
  }

  paint() {
    for (const view of this.views) view.paint();
  }

  stop() {
    this.comm?.send({ answer: this.id, stop: true });
    this.status = "stopping";
    this.paint();
  }

  get line() {
    if (this.end !== null) return this.end;
    const name = this.model.get("name");
    if (!this.tokens) return this.status ? `${name} · ${this.status}` : name;
    const seconds = (performance.now() - this.first) / 1000;
    const rate = seconds > 0.5 ? ` · ${Math.round(this.tokens / seconds)}/s` : "";
    const stopping = this.status === "stopping" ? " · stopping" : "";
    return `${name} · ${this.tokens} tokens${rate}${stopping}`;
  }
}

class View {
  constructor(live, el) {
    this.live = live;
    this.shown = { text: 0, thought: 0 };
    this.frame = 0;
    const make = (tag, name, parent) => {
      const node = document.createElement(tag);
      node.className = name;
      parent.append(node);
      return node;
    };
    const root = make("div", "lazynb-answer", el);
    const style = document.createElement("style");
    style.textContent = CSS;
    root.append(style);
    this.nodes = { thought: make("div", "lazynb-thought", root), text: make("div", "lazynb-text", root) };
    const meta = make("div", "lazynb-meta", root);
    this.line = make("span", "", meta);
    this.stop = make("button", "", meta);
    this.stop.type = "button";
    this.stop.textContent = "Stop";
    this.stop.setAttribute("aria-label", "Stop this answer");
    this.stop.onclick = () => live.stop();
    live.views.add(this);
    this.draw();
  }

  paint() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    for (const [name, node] of Object.entries(this.nodes)) {
      const { value } = this.live.parts[name];
      if (value.length > this.shown[name]) {
        node.append(value.slice(this.shown[name])); // a text node
        this.shown[name] = value.length;
        if (name === "thought") node.scrollTop = node.scrollHeight;
      }
    }
    this.line.textContent = this.live.line;
    this.stop.hidden = this.live.end !== null;
  }
}

function live(model) {
  const id = model.get("answer");
  if (!answers.has(id)) answers.set(id, new Live(model));
  return answers.get(id);
}

export default {
  initialize({ model }) {
    live(model);
  },
  render({ model, el }) {
    const state = live(model);
    const view = new View(state, el);
    return () => {
      cancelAnimationFrame(view.frame);
      state.views.delete(view);
    };
  },
};
