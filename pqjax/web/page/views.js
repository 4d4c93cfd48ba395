// What the page is made of: elements, numbers in words, tables and the timeline. Text is only ever set as text.

export function element(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function bytes(n) {
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (n >= scale) return `${Number((n / scale).toPrecision(3))} ${unit}`;
  }
  return `${n} B`;
}

export function seconds(s) {
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  if (s >= 90) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return s >= 10 ? `${Math.round(s)} s` : `${Number(s.toFixed(s < 1 ? 2 : 1))} s`;
}

export function show(node, visible) {
  node.hidden = !visible;
}

export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Rows are made once and their cells changed, so that focus and a reader's place stay.
export function rows(table, count, make) {
  const body = table.tBodies[0];
  while (body.rows.length > count) body.lastElementChild.remove();
  while (body.rows.length < count) body.append(make(body.rows.length));
  return [...body.rows];
}

export function cells(row, texts) {
  texts.forEach((text, i) => say(row.cells[i], text));
}

export function row(n, first = "th") {
  const made = element("tr");
  for (let i = 0; i < n; i++) {
    made.append(i ? element("td") : element(first, first === "th" ? { scope: "row" } : {}));
  }
  return made;
}

export function problem(error) {
  const list = element("dl");
  for (const [name, text] of [["expected", error.expected], ["got", error.got], ["what to do", error.do]]) {
    if (text) list.append(element("dt", { text: name }), element("dd", { text }));
  }
  return element("div", { class: "problem" }, element("b", { text: error.message }), list);
}

const SVG = "http://www.w3.org/2000/svg";
const PHASES = ["setup", "install", "offline", "online"];
const WIDTH = 1000, HEIGHT = 40;

function rect(kind, x, width, title) {
  const made = document.createElementNS(SVG, "rect");
  const fields = { class: kind, x, y: 0, width: Math.max(width, 0.3), height: HEIGHT };
  for (const [name, value] of Object.entries(fields)) made.setAttribute(name, value);
  if (title) {
    const text = document.createElementNS(SVG, "title");
    text.textContent = title;
    made.append(text);
  }
  return made;
}

// A layer is a box as long as it took; the part that it computed is solid, what it waited for is pale.
export function timeline(where, told) {
  const end = Math.max(...[...told.client, ...told.server].map(([, , begin, took]) => begin + took), 1e-9);
  where.replaceChildren();
  for (const [party, who] of [["client", "You"], ["server", "The server"]]) {
    if (!told[party].length) continue;
    const svg = document.createElementNS(SVG, "svg");
    const fields = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" };
    fields["aria-label"] = `${who} over ${seconds(end)}: the table below has the sums`;
    for (const [name, value] of Object.entries(fields)) svg.setAttribute(name, value);
    for (const [phase, layer, begin, took, waited] of told[party]) {
      const x = (begin / end) * WIDTH, scale = WIDTH / end;
      svg.append(rect(`${phase} wait`, x, took * scale, `${phase}, ${layer}: ${seconds(took)}`));
      svg.append(rect(phase, x, (took - waited) * scale));
    }
    where.append(element("p", { class: "party", text: `${who}, 0 to ${seconds(end)}` }), svg);
  }
  const legend = element("ul", { class: "legend" });
  for (const phase of PHASES) legend.append(element("li", {}, element("i", { class: phase }), phase));
  legend.append(element("li", {}, element("i", { class: "online wait" }), "pale: waiting"));
  where.append(legend);
}

export function sums(table, told) {
  const of = (party, phase) => {
    const spans = told[party].filter((span) => span[0] === phase);
    const [took, waited] = [3, 4].map((i) => spans.reduce((sum, span) => sum + span[i], 0));
    return told[party].length ? [seconds(took - waited), seconds(waited)] : ["?", "?"];
  };
  const there = PHASES.filter((phase) => told.client.some((span) => span[0] === phase));
  rows(table, there.length, () => row(5)).forEach((made, i) => {
    cells(made, [there[i], ...of("client", there[i]), ...of("server", there[i])]);
  });
}
