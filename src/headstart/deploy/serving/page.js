"use strict";
const $ = (id) => document.getElementById(id);
const { modality, noun, bytes, items, seconds } = document.body.dataset;
const SIDE = 256, GRID = 7; // the picture that is looked at part by part, and its parts

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function say(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

// The server says when it is busy, and when to come again.
async function ask(body, headers = {}) {
  for (let turn = 0; ; turn++) {
    const reply = await fetch("/predict", { method: "POST", body, headers });
    if ((reply.status === 429 || reply.status === 503) && turn < 5) {
      const wait = Number(reply.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * wait));
      continue;
    }
    const told = await reply.json();
    if (!told.results) throw new Error(told.problem);
    return told.results;
  }
}

function form(files) {
  const filled = new FormData();
  for (const file of files) filled.append("file", file, file.name || noun);
  return filled;
}

const percent = (share) => (share < 0.001 ? "< 0.1 %" : share > 0.999 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`);

function bars(predictions) {
  return made("ul", { className: "bars" }, ...predictions.map(({ label, score }) => {
    const fill = made("span", { className: "fill" });
    requestAnimationFrame(() => requestAnimationFrame(() => { fill.style.width = `${100 * score}%`; }));
    return made("li", {}, made("span", { textContent: label }), made("span", { textContent: percent(score) }),
      made("span", { className: "track" }, fill));
  }));
}

function show(card, result, took) {
  const told = card.querySelector(".told");
  if (result.problem) {
    card.classList.add("bad");
    told.replaceChildren(made("h2", { textContent: `This ${noun} ${result.problem}` }));
    return;
  }
  const [top] = result.predictions;
  const answer = result.labels ? result.labels.join(", ") || "none of the labels" : top.label;
  const unsure = result.sure === false;
  card.classList.toggle("unsure", unsure);
  told.replaceChildren(
    made("h2", {}, unsure ? "I don't know " : `${answer} `,
      made("small", { textContent: unsure ? `most likely ${top.label}` : took ? `in ${took.toFixed(0)} ms` : "" })),
    bars(result.predictions));
}

async function answerFile(file) {
  const url = URL.createObjectURL(file);
  const seen = made("figure", { className: "seen" },
    modality === "image" ? made("img", { src: url, alt: "" }) : made("audio", { src: url, controls: true }),
    made("figcaption", { textContent: file.name || "" }));
  const card = made("article", { className: "card answer" }, seen, made("div", { className: "told" }, "…"));
  $("answers").prepend(card);
  try {
    if (file.size > Number(bytes)) throw new Error(`has more than ${(bytes / 1e6).toFixed(0)} MB`);
    const begun = performance.now();
    const [result] = await ask(form([file]));
    show(card, result, performance.now() - begun);
    if (modality === "image" && result.predictions) offerLook(card, seen, file, result.predictions[0].label);
  } catch (error) {
    show(card, { problem: error instanceof TypeError ? "could not be sent: is the server running?" : `: ${error.message}` });
  }
}

async function answerFiles(files) {
  say("");
  const queue = [...files];
  await Promise.all(Array.from({ length: 4 }, async () => {
    while (queue.length) await answerFile(queue.shift());
  }));
}

// Where the network looks: every part is covered in turn, and what counts is by how much the probability falls.
function offerLook(card, seen, file, label) {
  const button = made("button", { type: "button", className: "look", textContent: "Where does it look?" });
  card.querySelector(".told").append(button);
  button.onclick = async () => {
    button.disabled = true;
    button.textContent = "Covering one part after another …";
    try {
      const falls = await looked(file, label);
      paint(seen, falls);
      const most = Math.max(...falls);
      button.replaceWith(made("p", { className: "explained", textContent: most < 0.005
        ? `None of the ${GRID * GRID} parts matters alone: whichever was covered, “${label}” stayed as likely.`
        : `Each of ${GRID * GRID} parts was covered in turn. Where the tint is strongest, “${label}” lost ${(100 * most).toFixed(0)} points.` }));
    } catch (error) {
      button.disabled = false;
      button.textContent = `Where does it look? (${error.message})`;
    }
  };
}

async function looked(file, label) {
  const picture = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.min(picture.width, picture.height));
  const canvas = made("canvas", { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
  const pen = canvas.getContext("2d");
  const still = async (covered) => {
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    if (covered !== null) {
      const [x, y] = [covered % GRID, Math.floor(covered / GRID)];
      pen.fillStyle = "#808080";
      pen.fillRect((x * canvas.width) / GRID, (y * canvas.height) / GRID, canvas.width / GRID, canvas.height / GRID);
    }
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };
  const wanted = [null, ...Array(GRID * GRID).keys()];
  const scores = [];
  for (let start = 0; start < wanted.length; start += 16) {
    const filled = form(await wanted.slice(start, start + Math.min(16, items)).reduce(
      async (before, part) => [...(await before), await still(part)], []));
    filled.append("top_k", "1000000");
    for (const { predictions } of await ask(filled)) scores.push(predictions.find((each) => each.label === label).score);
  }
  const [whole, ...parts] = scores;
  return parts.map((score) => Math.max(0, whole - score));
}

function paint(seen, falls) {
  const small = made("canvas", { width: GRID, height: GRID });
  const most = Math.max(0.02, ...falls);
  const pen = small.getContext("2d");
  falls.forEach((fall, part) => {
    pen.fillStyle = `rgba(255, 96, 16, ${(0.78 * fall) / most})`;
    pen.fillRect(part % GRID, Math.floor(part / GRID), 1, 1);
  });
  const picture = seen.querySelector("img");
  small.style.height = `${picture.clientHeight}px`;
  picture.after(small);
}

function pictures() {
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (files.length) answerFiles(files);
  });
  const [button, camera] = [$("live"), $("camera")];
  button.hidden = !navigator.mediaDevices?.getUserMedia;
  button.onclick = async () => {
    say("");
    try {
      if (camera.hidden) {
        camera.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
        camera.hidden = false;
        button.textContent = "Take the picture";
        await camera.play();
        return;
      }
      const canvas = made("canvas", { width: camera.videoWidth, height: camera.videoHeight });
      canvas.getContext("2d").drawImage(camera, 0, 0);
      canvas.toBlob((blob) => answerFiles([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.95);
    } catch (error) {
      say(`The camera cannot be used: ${error.message}`);
      return;
    }
    camera.srcObject.getTracks().forEach((track) => track.stop());
    camera.hidden = true;
    button.textContent = "Use the camera";
  };
}

// What browsers record is no format that the server reads: it becomes a WAV file here.
async function wav(blob) {
  const context = new AudioContext();
  const sound = await context.decodeAudioData(await blob.arrayBuffer());
  await context.close();
  const samples = sound.getChannelData(0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (place, text) => [...text].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  word(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, sound.sampleRate, true); view.setUint32(28, 2 * sound.sampleRate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true); word(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new File([view], "recording.wav", { type: "audio/wav" });
}

function sounds() {
  const button = $("live");
  let recorder = null;
  button.hidden = !navigator.mediaDevices?.getUserMedia || !window.MediaRecorder;
  button.onclick = async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    say("");
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const parts = [];
      recorder = new MediaRecorder(stream);
      recorder.ondataavailable = (event) => parts.push(event.data);
      recorder.onstop = async () => {
        stream.getTracks().forEach((track) => track.stop());
        button.textContent = "Record";
        button.classList.remove("live");
        recorder = null;
        try {
          await answerFiles([await wav(new Blob(parts))]);
        } catch (error) {
          say(`The recording cannot be used: ${error.message}`);
        }
      };
      recorder.start();
      setTimeout(() => recorder?.stop(), 1000 * Math.min(60, seconds));
      button.textContent = "Stop";
      button.classList.add("live");
    } catch (error) {
      say(`The microphone cannot be used: ${error.message}`);
    }
  };
}

function texts() {
  const [field, second, state] = [$("text"), $("second"), $("state")];
  const card = made("article", { className: "card answer plain", hidden: true }, made("div", { className: "told" }));
  $("answers").append(card);
  let timer = 0, latest = 0;
  const answer = async () => {
    const turn = ++latest;
    if (!field.value.trim() || (second && !second.value.trim())) {
      card.hidden = true;
      return;
    }
    try {
      const begun = performance.now();
      const inputs = second ? { text: field.value, text_pair: second.value } : field.value;
      const [result] = await ask(JSON.stringify({ inputs }), { "Content-Type": "application/json" });
      if (turn !== latest) return;
      card.classList.remove("bad");
      card.hidden = false;
      show(card, result, performance.now() - begun);
      state.textContent = "The answer follows while you type.";
    } catch (error) {
      if (turn === latest) state.textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    }
  };
  for (const each of second ? [field, second] : [field])
    each.oninput = () => { clearTimeout(timer); timer = setTimeout(answer, 250); };
  $("ask").onsubmit = (event) => event.preventDefault();
}

function files() {
  const drop = $("drop");
  $("file").onchange = (event) => { answerFiles(event.target.files); event.target.value = ""; };
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    answerFiles(event.dataTransfer.files);
  });
  (modality === "image" ? pictures : sounds)();
}

$("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
};
$("origin").textContent = location.origin;
(modality === "text" ? texts : files)();
