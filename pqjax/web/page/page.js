// The page of `pqjax demo`: it hears every change as an event, and asks with two requests.

import { bytes, cells, element, problem, row, rows, say, seconds, show, sums, timeline } from "/views.js";

const $ = (id) => document.getElementById(id);
const PHASES = {
  setup: "oblivious transfer is set up, once a session",
  install: "the network's hints come, once for this machine",
  offline: "all work that needs no picture",
  online: "your picture's masked shares go, the answer's come",
};
const MOST_BYTES = 32 << 20;

let shown = null; // number of the picture that this tab shows; null: the latest
let drawn = null; // number of the one whose timeline is drawn
let planned = null; // preset whose layers are listed
let state = null;

function trouble(error) {
  $("problem").replaceChildren(...(error ? [problem(error)] : []));
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw { message: "no answer from pqjax demo", do: "see whether it still runs, and start it again if not" };
  }
  const tree = await answer.json();
  if (!answer.ok) throw tree.error;
  return tree;
}

async function ask(file) {
  trouble(null);
  try {
    if (file.size > MOST_BYTES) {
      throw {
        message: "this file is too long", expected: `at most ${bytes(MOST_BYTES)}`, got: bytes(file.size),
        do: "choose a smaller picture",
      };
    }
    const name = encodeURIComponent(file.name);
    const told = await request(`/pictures?name=${name}`, { method: "POST", body: file });
    shown = told.number;
    if (state) render();
  } catch (error) {
    trouble(error);
  }
}

async function choose(preset) {
  trouble(null);
  try {
    await request("/preset", { method: "POST", body: JSON.stringify({ preset }) });
  } catch (error) {
    trouble(error);
    render(); // the radio goes back
  }
}

// The server's state, in words.

const STAGES = {
  making: () => `The network is made, which takes some minutes, once: ${state.doing}`,
  planning: () => `The plan is made for ${state.doing}`,
  starting: () => `The server starts, with preset ${state.doing}; the first time it makes its hints, too`,
  ready: () => `Ready, by preset ${state.doing}`,
  failed: () => "This cannot go on",
};

function renderStage() {
  say($("status"), STAGES[state.stage]() + (state.stage === "ready" ? "." : " ..."));
  const busy = state.stage !== "ready" && state.stage !== "failed";
  show($("since"), busy);
  if (busy) say($("since"), `${seconds(state.since)} so far`);
  const [done, steps] = state.part;
  show($("making"), state.stage === "making");
  if (steps) $("making").value = done / steps;
  else $("making").removeAttribute("value");
  $("file").disabled = !state.network || state.stage === "making" || state.stage === "planning";
  const net = state.network;
  if (net) {
    const classes = net.classes ? `, ${net.classes} classes` : "";
    say($("network"), `${net.name}: ${net.layers} layers, input ${net.input.join("x")}${classes}. ${state.note}`);
  } else say($("network"), state.note);
  if (state.stage === "failed" && state.error) trouble(state.error);
  else if (renderStage.failed) trouble(null);
  renderStage.failed = state.stage === "failed";
}

// One picture.

function words(asked) {
  if (asked.stage === "waiting") return "Waits for its turn.";
  if (asked.stage === "failed") return "No answer.";
  if (asked.stage === "done") return `Answered in ${seconds(asked.seconds)}, by ${asked.preset}.`;
  if (asked.stage === "connecting" || asked.phase === "setup") return "Connects and sets up oblivious transfer.";
  const what = { install: "Gets the hints", offline: "Prepares", online: "Asks" }[asked.phase];
  return `${what}: ${asked.layer || "done"}`;
}

function renderInquiry() {
  const asked = state.inquiries.find((each) => each.number === shown) ?? state.inquiries.at(-1);
  show($("inquiry"), Boolean(asked));
  if (!asked) return;
  say($("h-way"), asked.name);
  say($("doing"), words(asked));
  $("bar").value = asked.fraction;
  $("bar").setAttribute("aria-valuetext", `${Math.round(100 * asked.fraction)} %`);
  const left = asked.left === null ? "" : `about ${seconds(asked.left)} to go, `;
  const took = asked.stage === "waiting" || asked.stage === "done" ? "" : `${seconds(asked.seconds)} so far`;
  say($("left"), left + took);
  say($("fitted"), asked.fitted ? `It was ${asked.fitted}, as the network takes it.` : "");
  const seen = `/pictures/${asked.number}/seen.png`;
  if ($("seen").getAttribute("src") !== seen) $("seen").src = seen;
  const noise = `/pictures/${asked.number}/noise.png?${Math.floor(asked.seconds)}${asked.stage}`;
  if ($("noise").getAttribute("src") !== noise) $("noise").src = noise;
  const sure = asked.entropy === null ? "" : `Entropy: ${asked.entropy.toFixed(3)} bits a byte; pure noise has 8.`;
  say($("entropy"), sure);
  renderBytes(asked);
  renderAnswer(asked);
  if (asked.error && renderInquiry.told !== asked.number) {
    trouble(asked.error);
    renderInquiry.told = asked.number;
  }
  if (asked.stage === "done") renderTimes(asked);
  else show($("times"), false);
}

function renderBytes(asked) {
  const names = Object.keys(PHASES);
  const made = rows($("bytes"), names.length + 1, () => row(4));
  names.forEach((phase, i) => {
    const { sent, received } = asked.bytes[phase];
    cells(made[i], [phase, bytes(sent), bytes(received), PHASES[phase]]);
    made[i].className = asked.phase === phase ? "now" : "";
  });
  made.at(-1).className = "sum";
  cells(made.at(-1), ["on the wire", bytes(asked.wire.sent), bytes(asked.wire.received), "as counted between the two"]);
  const exact = {
    true: "Every layer sent and received what the plan had predicted, to the bit.",
    false: "What was sent departs from what the plan had predicted.",
  };
  say($("exact"), exact[asked.exact] ?? "");
}

function renderAnswer(asked) {
  show($("answer"), asked.classes.length > 0);
  if (!asked.classes.length) return;
  const name = (each) => each.name ?? `class ${each.class}`;
  say($("best"), `Most likely: ${name(asked.classes[0])}.`);
  const scores = asked.classes.map((each) => each.score ?? 0);
  const [high, low] = [Math.max(...scores), Math.min(...scores)];
  const made = rows($("classes"), asked.classes.length, () => {
    const one = row(3);
    one.cells[2].className = "gauge";
    one.cells[2].setAttribute("aria-hidden", "true");
    one.cells[2].append(element("span"));
    return one;
  });
  asked.classes.forEach((each, i) => {
    const score = each.score === null ? "" : each.score.toFixed(2);
    cells(made[i], [name(each), score]);
    const share = high > low ? 0.05 + (0.95 * (scores[i] - low)) / (high - low) : 1;
    made[i].cells[2].firstChild.style.width = `${100 * share}%`;
  });
}

async function renderTimes(asked) {
  show($("times"), true);
  if (drawn === asked.number) return;
  drawn = asked.number;
  try {
    const told = await request(`/pictures/${asked.number}/timeline`);
    timeline($("timeline"), told);
    sums($("seconds"), told);
  } catch (error) {
    trouble(error);
  }
}

function renderEarlier() {
  const at = state.inquiries;
  show($("earlier"), at.length > 1);
  const current = at.find((each) => each.number === shown) ?? at.at(-1);
  const keys = at.map((each) => each.number).join();
  if (renderEarlier.keys !== keys) {
    renderEarlier.keys = keys;
    $("earlier").replaceChildren(...at.map(({ number, name }) => {
      const onclick = () => { shown = number; render(); };
      return element("button", { type: "button", text: `${number}. ${name}`, "data-number": number, onclick });
    }));
  }
  for (const button of $("earlier").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.number) === current?.number));
  }
}

// Presets and the plan.

function presetRow(i) {
  const one = row(5), name = state.presets[i].name;
  const radio = element("input", { type: "radio", name: "preset", value: name, onchange: () => choose(name) });
  one.cells[0].append(element("label", {}, radio, ` ${name}`, element("span")));
  return one;
}

function renderPresets() {
  const made = rows($("presets"), state.presets.length, presetRow);
  state.presets.forEach((preset, i) => {
    const radio = made[i].querySelector("input");
    radio.checked = preset.name === state.chosen;
    radio.disabled = Boolean(preset.error) || !state.network;
    made[i].className = preset.name === state.chosen ? "now" : "";
    say(made[i].querySelector("span"), preset.error ? preset.error.message : preset.about ?? "");
    const told = preset.bytes
      ? [bytes(preset.bytes.install), bytes(preset.bytes.offline), bytes(preset.bytes.online),
        seconds(preset.seconds.offline + preset.seconds.online)]
      : Array(4).fill(preset.error ? "-" : "...");
    told.forEach((text, at) => say(made[i].cells[at + 1], text));
  });
  const known = state.presets.find((preset) => preset.rates);
  const rates = known?.rates === "nominal"
    ? "nominal rates, which `pqjax calibrate` replaces by this machine's" : `rates ${known?.rates}`;
  say($("rates"), known ? `Seconds by ${rates}. “Once” comes with the first picture only.` : "");
  if ($("plan").open) renderPlan();
}

async function renderPlan() {
  const preset = state.chosen;
  if (planned === preset || !state.presets.find((each) => each.name === preset)?.bytes) return;
  planned = preset;
  try {
    const steps = await request(`/plans/${preset}`);
    $("layers").caption.textContent = `${steps.length} layers by ${preset}`;
    const made = rows($("layers"), steps.length, () => row(8));
    steps.forEach((step, i) => cells(made[i], [
      step.layer, step.kind, step.formats, step.method, bytes(step.offline), bytes(step.online),
      String(step.flows), seconds(step.seconds),
    ]));
  } catch (error) {
    planned = null;
    trouble(error);
  }
}

function render() {
  renderStage();
  renderInquiry();
  renderEarlier();
  renderPresets();
}

// Hearing.

const events = new EventSource("/events");
let lost = false;
events.onmessage = (event) => {
  if (lost) trouble(null);
  lost = false;
  state = JSON.parse(event.data);
  render();
};
events.onerror = () => {
  lost = true;
  say($("status"), "Not connected.");
  trouble({ message: "pqjax demo does not answer", do: "start it again, and open the address that it prints" });
};

// Asking.

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) ask(file);
  $("file").value = ""; // the same file may be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a picture that is dropped beside does not replace the page
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length && !$("file").disabled) ask(event.dataTransfer.files[0]);
  });
}
$("plan").addEventListener("toggle", renderPresets);
