// The page: a sound goes in, and the server's answers are shown. No library, and nothing from elsewhere.

import { drawAttention, drawWaveform } from "./pictures.js";
import { example, record } from "./sounds.js";

const $ = (id) => document.getElementById(id);
const shown = { about: null, sound: null, picture: null, attention: null, turn: 0 };

/** Call the server; what it refuses becomes an Error with its line. */
async function call(path, fields) {
  const headers = {};
  const token = sessionStorage.getItem("mint-token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const options = { headers };
  if (fields) {
    options.method = "POST";
    options.body = new FormData();
    Object.entries(fields).forEach(([name, value]) => options.body.append(name, value));
  }

  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const refusal = await response.json().catch(() => null);
  if (response.status === 401) $("login").hidden = false;
  throw new Error(refusal?.error?.message ?? `The server answered with the status ${response.status}.`);
}

const ask = async (path, fields) => (await call(path, fields)).json();

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

/** Run what a button starts: it is disabled meanwhile, and errors are shown. */
async function during(button, work) {
  if (button) button.disabled = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    if (button) button.disabled = false;
  }
}

const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const rest = (seconds - whole).toFixed(1).slice(1);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const text = parts.slice(parts[0] ? 0 : 1).map((one, i) => (i ? String(one).padStart(2, "0") : one)).join(":");
  return rest === ".0" ? text : text + rest;
};

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function draw() {
  if (shown.picture) drawWaveform($("waveform"), shown.picture.waveform);
  if (shown.attention) {
    const { attention, step_seconds: step, window_seconds: seconds } = shown.attention;
    drawAttention($("attention"), attention, (attention[0].length * step) / seconds);
  }
}

/** Take a sound in, show it, and let the model describe it. */
async function take(sound, name) {
  const most = shown.about?.most_bytes ?? Infinity;
  if (sound.size > most) {
    say(`${name} is larger than ${Math.floor(most / 2 ** 20)} MiB; choose a shorter sound.`, true);
    return;
  }
  // Answers about an earlier sound may still come.
  shown.turn += 1;
  const { turn } = shown;
  Object.assign(shown, { sound, picture: null, attention: null });
  if ($("player").src) URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(sound);
  ["caption", "answer"].forEach((id) => { $(id).textContent = ""; });
  $("bars").replaceChildren();
  $("timeline").hidden = true;
  say(`Listening to ${name} …`);

  try {
    const picture = await ask("/picture", { file: sound });
    if (turn !== shown.turn) return;
    shown.picture = picture;
    show(picture);

    const answers = [ask("/attention", { file: sound })];
    if (shown.about?.text) answers.push(ask("/caption", { file: sound }));
    const [attention, caption] = await Promise.all(answers);
    if (turn !== shown.turn) return;
    shown.attention = attention;
    $("attention").hidden = false;
    $("attention-note").hidden = false;
    if (caption) $("caption").textContent = caption.caption || "(The model says nothing.)";
    draw();
    say(`${name}, ${clock(picture.seconds)}`);
  } catch (error) {
    if (turn === shown.turn) say(error.message, true);
  }
}

/** Show the pictures of a sound, and what can be asked about it. */
function show(picture) {
  document.querySelectorAll(".needs-sound").forEach((part) => {
    part.hidden = (part.classList.contains("needs-text") && !shown.about?.text)
      || (part.classList.contains("needs-timeline") && !shown.about?.timeline);
  });
  $("sound").hidden = false;
  $("attention").hidden = true;
  $("attention-note").hidden = true;
  $("like").disabled = false;
  $("spectrogram").src = picture.spectrogram;

  const ticks = [0, 1, 2, 3, 4].map((part) => clock((part * picture.window_seconds) / 4));
  $("axis").replaceChildren(...ticks.map((text) => element("span", text)));
  draw();
}

function showBars(rows) {
  $("bars").replaceChildren(...rows.map((row) => {
    const item = element("li");
    const bar = element("progress");
    bar.max = 1;
    bar.value = row.probability;
    bar.setAttribute("aria-label", row.label);
    const number = element("span", `${(100 * row.probability).toFixed(1)} %`, "number");
    item.append(element("span", row.label, "name"), bar, number);
    return item;
  }));
}

function showHits(hits) {
  $("hits").replaceChildren(...hits.map((hit) => {
    const item = element("li");
    const times = `${clock(hit.start)} – ${clock(hit.end)}`;
    // Folders that all clips share say little; the whole path shows when the pointer rests on it.
    const name = element("span", hit.audio.split("/").slice(-2).join("/"), "name");
    name.title = hit.audio;
    item.append(name, element("span", times, "quiet"), element("span", hit.score.toFixed(3), "number"));
    return item;
  }));
  if (!hits.length) $("hits").append(element("li", "The index holds no clip."));
}

/** Add a row of the timeline; its time is a button that plays from there. */
function showRow(row) {
  const line = element("tr");
  const from = element("td");
  const play = element("button", clock(row.start));
  play.type = "button";
  play.setAttribute("aria-label", `Play from ${clock(row.start)}`);
  play.addEventListener("click", () => {
    $("player").currentTime = row.start;
    $("player").play();
  });
  from.append(play);
  line.append(from, element("td", clock(row.end)), element("td", row.answer));
  $("timeline").tBodies[0].append(line);
}

/** Read the lines of an answer as they come. */
async function eachLine(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const lines = rest.split("\n");
    rest = done ? "" : lines.pop();
    lines.filter((line) => line).forEach((line) => take(JSON.parse(line)));
    if (done) return;
  }
}

function onSubmit(form, work) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    during(event.submitter, work);
  });
}

onSubmit("ask-form", async () => {
  $("answer").textContent = "";
  const fields = { file: shown.sound, prompt: $("question").value };
  const [answer, attention] = await Promise.all([ask("/ask", fields), ask("/attention", fields)]);
  $("answer").textContent = answer.answer || "(The model says nothing.)";
  shown.attention = attention;
  draw();
});

onSubmit("labels-form", async () => {
  showBars((await ask("/classify", { file: shown.sound, labels: $("labels").value })).labels);
});

onSubmit("timeline-form", async () => {
  const fields = { file: shown.sound, every: $("every").value, stream: "true" };
  if ($("kind").value === "labels") fields.labels = $("labels").value;
  $("timeline").tBodies[0].replaceChildren();
  const response = await call("/timeline", fields);
  $("timeline").hidden = false;
  await eachLine(response, (row) => {
    if (row.error) throw new Error(row.error.message);
    showRow(row);
  });
});

onSubmit("search-form", async () => {
  if ($("query").value.trim()) showHits((await ask("/search", { query: $("query").value })).hits);
});

$("like").addEventListener("click", (event) => during(event.target, async () => {
  showHits((await ask("/search", { file: shown.sound })).hits);
}));

onSubmit("login-form", async () => {
  sessionStorage.setItem("mint-token", $("token").value);
  $("login").hidden = true;
  say("");
  await start();
});

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) take(file, file.name);
  // The same file may be chosen again.
  $("file").value = "";
});

document.querySelectorAll("[data-example]").forEach((button) => {
  button.addEventListener("click", () => take(example(button.dataset.example), `the example ${button.dataset.example}`));
});

let recording = null;
$("record").addEventListener("click", () => during($("record"), async () => {
  if (recording) {
    const stopped = recording;
    recording = null;
    $("record").textContent = "Record";
    $("record").setAttribute("aria-pressed", "false");
    take(await stopped.stop(), "the recording");
    return;
  }
  try {
    recording = await record();
  } catch {
    throw new Error("There is no microphone that this page may use. Choose a file instead.");
  }
  $("record").textContent = "Stop";
  $("record").setAttribute("aria-pressed", "true");
  say("Recording …");
}));

["dragover", "dragleave", "drop"].forEach((kind) => document.addEventListener(kind, (event) => {
  event.preventDefault();
  $("drop").classList.toggle("over", kind === "dragover");
  const [file] = (kind === "drop" && event.dataTransfer?.files) || [];
  if (file) take(file, file.name);
}));

$("player").addEventListener("timeupdate", () => {
  const seconds = shown.picture?.window_seconds;
  const share = seconds ? $("player").currentTime / seconds : 2;
  $("cursor").style.display = share > 0 && share < 1 ? "block" : "none";
  $("cursor").style.left = `${100 * share}%`;
});

window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

/** Ask what the server can do, and show the parts of the page that fit. */
async function start() {
  shown.about = await ask("/about");
  $("model").textContent = shown.about.model;
  $("search-part").hidden = !shown.about.search;
  if (shown.about.search) $("clips").textContent = `in ${shown.about.clips} clips`;
}

during(null, start);
