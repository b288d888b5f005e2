// The page's side of a live curve: an SVG of the points that the kernel sends, with the values under the pointer, a log scale, and
// the picture as a file.
//
// The widget's state holds the whole curve (a few hundred points), so a page that was opened in mid-run has all of it. The page
// reports itself over a comm of its own, because only such a comm is served while the cell blocks (see stream.js). In the end the
// kernel replaces this output by a plain one; a page that was opened after the cell had begun does not get that message, and puts
// the plain output into the notebook itself. Text only ever becomes text nodes.

const CSS = `
.lazynb-curve { position: relative; width: 640px; font-family: var(--jp-ui-font-family, sans-serif);
  font-size: var(--jp-ui-font-size1, 13px); color: var(--jp-ui-font-color2, #757575); }
.lazynb-curve svg { display: block; }
.lazynb-curve footer { display: flex; justify-content: space-between; gap: 12px; }
.lazynb-curve button { font: inherit; color: inherit; background: none; border: none; padding: 0 4px; cursor: pointer;
  text-decoration: underline; text-underline-offset: 2px; }
.lazynb-curve button[aria-pressed=true] { color: var(--jp-brand-color1, #1976d2); }
.lazynb-curve button:focus-visible { outline: 1px solid var(--jp-brand-color1, #1976d2); }
.lazynb-values { position: absolute; top: 4px; right: -6px; width: 124px; text-align: right; pointer-events: none; white-space: pre;
  font-variant-numeric: tabular-nums; }
`;
const SVG = "http://www.w3.org/2000/svg";
const MIME = "application/vnd.jupyter.widget-view+json";
const REPLACED = 1000; // ms that the kernel's own replacement may take
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 240, 48, 110, 12, 34];
const GREY = "#888";

const number = (value) => String(Number(value.toPrecision(4)));

function nice(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= size);
}

// Where a step and a loss lie in the picture, and the losses that the axis names.
class Frame {
  constructor(points, log) {
    const [steps, values] = [points.map((p) => p[0]), points.map((p) => p[1])];
    this.log = log && Math.min(...values) > 0;
    [this.first, this.last] = [Math.min(...steps), Math.max(...steps)];
    const scaled = values.map((value) => this.scale(value));
    const [low, high] = [Math.min(...scaled), Math.max(...scaled)];
    const step = nice((high - low || Math.abs(high) || 1) / 4);
    this.low = step * Math.floor(low / step);
    this.high = step * Math.max(Math.ceil(high / step), Math.floor(low / step) + 1);
    this.ticks = Array.from({ length: Math.round((this.high - this.low) / step) + 1 }, (_, n) => this.low + n * step);
  }

  scale(value) {
    return this.log ? Math.log10(value) : value;
  }

  x(step) {
    return LEFT + ((step - this.first) / (this.last - this.first || 1)) * (WIDTH - LEFT - RIGHT);
  }

  y(value) {
    return this.at((this.scale(value) - this.low) / (this.high - this.low));
  }

  at(share) {
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  }

  step(x) {
    return this.first + ((x - LEFT) / (WIDTH - LEFT - RIGHT)) * (this.last - this.first);
  }
}

function nearest(points, step) {
  return points.reduce((best, p) => (Math.abs(p[0] - step) < Math.abs(best[0] - step) ? p : best), points[0]);
}

class View {
  constructor(model, el) {
    this.model = model;
    this.logScale = false;
    this.pointer = null;
    const root = this.make("div", el);
    root.className = "lazynb-curve";
    this.make("style", root).textContent = CSS;
    this.svg = root.appendChild(document.createElementNS(SVG, "svg"));
    this.values = this.make("div", root);
    this.values.className = "lazynb-values";
    const footer = this.make("footer", root);
    this.line = this.make("span", footer);
    const buttons = this.make("span", footer);
    this.button(buttons, "log", "Logarithmic scale", (button) => {
      this.logScale = !this.logScale;
      button.setAttribute("aria-pressed", this.logScale);
      this.draw();
    });
    this.button(buttons, "SVG", "Save the picture as SVG", () => this.save("svg", this.source()));
    this.button(buttons, "PNG", "Save the picture as PNG", () => this.savePng());
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.pointer = ((event.clientX - box.left) / box.width) * WIDTH;
      this.draw();
    });
    this.svg.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw();
    });
    this.draw();
  }

  make(tag, parent) {
    return parent.appendChild(document.createElement(tag));
  }

  button(parent, text, label, action) {
    const button = this.make("button", parent);
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.onclick = () => action(button);
  }

  add(tag, attributes, text) {
    const node = this.svg.appendChild(document.createElementNS(SVG, tag));
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  path(frame, points, color, style) {
    const places = points.map(([step, value]) => `${frame.x(step).toFixed(1)},${frame.y(value).toFixed(1)}`).join(" ");
    this.add("polyline", { points: places, fill: "none", stroke: color, ...style });
  }

  draw() {
    const { loss, smooth, evaluated, rate, color } = this.model.get("curve");
    this.line.textContent = this.model.get("line");
    this.svg.replaceChildren();
    const size = loss?.length ? HEIGHT : 0;
    for (const [name, value] of Object.entries({
      viewBox: `0 0 ${WIDTH} ${size}`, width: WIDTH, height: size, role: "img", "aria-label": "Loss over steps",
      "font-family": "sans-serif", "font-size": 11, xmlns: SVG,
    })) this.svg.setAttribute(name, value);
    this.values.textContent = "";
    if (!size) return;
    const frame = new Frame([...loss, ...evaluated], this.logScale);
    for (const tick of frame.ticks) {
      const y = frame.at((tick - frame.low) / (frame.high - frame.low));
      this.add("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, stroke: GREY, "stroke-opacity": 0.25 });
      const value = number(frame.log ? 10 ** tick : tick);
      this.add("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end", fill: GREY }, value);
    }
    const bottom = HEIGHT - BOTTOM + 16;
    this.add("text", { x: LEFT, y: bottom, fill: GREY }, Math.round(frame.first));
    this.add("text", { x: WIDTH - RIGHT, y: bottom, "text-anchor": "end", fill: GREY }, Math.round(frame.last));
    this.add("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: bottom, "text-anchor": "middle", fill: GREY }, "step");
    this.add("text", { x: LEFT, y: TOP - 3, fill: GREY }, "loss");
    this.path(frame, loss, color, { "stroke-opacity": 0.3 });
    this.path(frame, smooth, color, { "stroke-width": 2 });
    for (const [step, value] of evaluated) this.add("circle", { cx: frame.x(step), cy: frame.y(value), r: 3.5, fill: color });
    const end = smooth[smooth.length - 1];
    this.add("text", { x: frame.x(end[0]) + 6, y: frame.y(end[1]) + 4, fill: color }, number(loss[loss.length - 1][1]));
    if (this.pointer !== null) this.point(frame, { loss, smooth, evaluated, rate });
  }

  // Mark the point under the pointer, and say its values.
  point(frame, { loss, smooth, evaluated, rate }) {
    const step = frame.step(this.pointer);
    const at = nearest(loss, step);
    const x = frame.x(at[0]);
    this.add("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, stroke: GREY, class: "lazynb-pointer" });
    const lines = [`step ${Math.round(at[0])}`, `loss ${number(at[1])}`, `smoothed ${number(nearest(smooth, step)[1])}`];
    if (evaluated.length) lines.push(`evaluation ${number(nearest(evaluated, step)[1])}`);
    if (rate.length) lines.push(`rate ${nearest(rate, step)[1].toExponential(1)}`);
    this.values.textContent = lines.join("\n");
  }

  source() {
    return new XMLSerializer().serializeToString(this.svg);
  }

  save(kind, content) {
    const type = { svg: "image/svg+xml", png: "image/png" }[kind];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = `${this.model.get("name")}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  savePng() {
    const picture = new Image();
    picture.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * WIDTH, 2 * HEIGHT];
      const context = canvas.getContext("2d");
      context.fillStyle = "white";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => this.save("png", blob));
    };
    picture.src = `data:image/svg+xml;utf8,${encodeURIComponent(this.source())}`;
  }
}

// Put the plain output in the place of every view of this curve.
async function settle(model) {
  const data = model.get("settled");
  const manager = model.widget_manager;
  for (const cell of manager.context?.model?.cells ?? []) {
    for (let index = 0; index < (cell.outputs?.length ?? 0); index += 1) {
      const id = cell.outputs.get(index).data[MIME]?.model_id;
      if (!id || !manager.has_model(id) || (await (await manager.get_model(id))?.get("run")) !== model.get("run")) continue;
      cell.outputs.set(index, { output_type: "display_data", data, metadata: {} });
    }
  }
}

async function report(model) {
  try {
    await model.widget_manager._create_comm("lazynb.view", crypto.randomUUID(), { answer: model.get("run") });
  } catch (error) {
    console.warn("lazynb: this page cannot open a comm", error); // the kernel shows the plain picture instead
  }
}

export default {
  initialize({ model }) {
    report(model);
    const later = () => Object.keys(model.get("settled")).length && setTimeout(() => settle(model), REPLACED);
    model.on("change:settled", later);
    later();
  },
  render({ model, el }) {
    const view = new View(model, el);
    const draw = () => view.draw();
    model.on("change:curve", draw);
    model.on("change:line", draw);
    return () => {
      model.off("change:curve", draw);
      model.off("change:line", draw);
    };
  },
};
