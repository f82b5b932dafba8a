import { cosine, Encoder, Problem } from "./encoder.js";

const IDEAS = ["an animal", "a fruit", "a boat on the sea", "riding a bike", "an old building"];
const EXAMPLES = [
  "apple", "bicycle", "bus", "castle", "elephant", "owl", "pizza", "rocket", "sailboat", "strawberry",
];

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
let images = []; // { file, card, embeds, problem }
let sentence = null; // { text, embeds, isCut }
let wanted = null; // the text to encode next

function make(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

function say(text, problem = null) {
  element("status").textContent = text;
  element("status").className = problem ? "bad" : "";
  element("command").textContent = problem?.command ?? "";
  element("command").hidden = !problem?.command;
}

function explain(error) {
  // What is not foreseen is told, too.
  const text = error instanceof Problem ? error.message : `This browser cannot run the model: ${error.message ?? error}`;
  say(text, error);
}

function showProgress(loaded, total) {
  element("progress").hidden = false;
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  element("loading").textContent = `Loading the model: ${megabytes(loaded)}${total ? ` of ${megabytes(total)}` : ""} MB`;
  if (total) element("loaded").value = loaded / total;
}

function add(files) {
  for (const file of files) {
    const url = URL.createObjectURL(file);
    const img = make("img", { alt: "", src: url, draggable: false });
    const frame = make("div", { className: "frame" }, img);
    img.onerror = () => frame.replaceChildren("no preview");
    const remove = make("button", { type: "button", className: "remove", textContent: "✕", ariaLabel: `Remove ${file.name}` });
    const name = make("span", { className: "name", textContent: file.name, title: file.name });
    const score = make("span", { className: "score" });
    const bar = make("div");
    const rail = make("div", { className: "rail", ariaHidden: "true" }, bar);
    const line = make("div", { className: "line" }, name, score);
    const card = make("li", {}, frame, remove, line, rail);
    const image = { file, url, card, score, bar, rail, embeds: null, problem: "" };
    remove.onclick = () => drop([image]);
    images.push(image);
  }
  show();
  encodeImages();
}

function drop(some) {
  const place = Math.min(...some.map(({ card }) => [...element("cards").children].indexOf(card)));
  for (const { url, card } of some) {
    URL.revokeObjectURL(url);
    card.remove();
  }
  images = images.filter((image) => !some.includes(image));
  show();
  // The focus must not be lost with the button that had it.
  const left = element("cards").querySelectorAll(".remove");
  (left[Math.min(place, left.length - 1)] ?? element("files")).focus();
}

// Cards in the order of their cosines; those without one stay behind the others.
function show() {
  const cosines = new Map();
  if (sentence) {
    for (const image of images) if (image.embeds) cosines.set(image, cosine(image.embeds, sentence.embeds));
  }
  const order = [...images].sort((one, other) => (cosines.get(other) ?? -2) - (cosines.get(one) ?? -2));
  const best = cosines.get(order[0]);
  order.forEach((image, place) => {
    const own = cosines.get(image), { card, score, bar, rail, problem } = image;
    card.classList.toggle("best", place === 0 && own !== undefined);
    score.textContent = own === undefined ? (image.embeds || problem ? "" : "…") : number.format(own);
    bar.style.width = own > 0 ? `${(100 * own) / best}%` : "0";
    if (problem && rail.isConnected) rail.replaceWith(make("p", { className: "problem", textContent: problem }));
    // A card that is in its place keeps the focus.
    if (element("cards").children[place] !== card) element("cards").insertBefore(card, element("cards").children[place] ?? null);
  });
  element("empty").hidden = images.length > 0;
  element("clear").disabled = images.length === 0;
  element("legend").hidden = cosines.size === 0;
  tell(order[0], cosines.size);
}

function tell(first, scored) {
  if (!encoder) return;
  const waiting = images.filter(({ embeds, problem }) => !embeds && !problem).length;
  if (waiting) return say(`Reading images: ${images.length - waiting} of ${images.length}…`);
  if (!images.length) return say("Ready. Choose images, or take the examples.");
  if (!scored) return say(sentence ? "None of these files is an image." : "Ready. Type a sentence.");
  const cut = sentence.isCut ? " The sentence is long: only its beginning was read." : "";
  say(`“${sentence.text}” fits ${first.file.name} best.${cut}`);
}

let encoder = null, isEncoding = false;

async function encodeImages() {
  if (!encoder || isEncoding) return;
  isEncoding = true;
  for (let next; (next = images.find(({ embeds, problem }) => !embeds && !problem)); ) {
    try {
      next.embeds = await encoder.image(next.file);
    } catch (error) {
      const isNoImage = error instanceof DOMException;
      next.problem = isNoImage ? "Not an image that this browser reads." : `Not read: ${error.message ?? error}`;
    }
    show();
    await new Promise((resolve) => setTimeout(resolve)); // lets the page be used meanwhile
  }
  isEncoding = false;
}

// Only the newest of what was typed while a sentence is being encoded comes next.
async function rank(text) {
  if (!encoder) return;
  const isBusy = wanted !== null;
  wanted = text.trim();
  if (isBusy) return;
  try {
    for (let done = null; done !== wanted; ) {
      const next = (done = wanted);
      sentence = next ? { text: next, ...(await encoder.sentence(next)) } : null;
    }
    show();
  } catch (error) {
    explain(error);
  } finally {
    wanted = null;
  }
}

async function takeExamples() {
  try {
    const files = EXAMPLES.map(async (name) => {
      const response = await fetch(`images/${name}.png`);
      if (!response.ok) throw new Problem("The example images are not here. Copy them from the repository:", "cp -R examples/images .");
      return new File([await response.blob()], `${name}.png`, { type: "image/png" });
    });
    add(await Promise.all(files));
  } catch (error) {
    explain(error);
  }
}

for (const text of IDEAS) {
  const idea = make("button", { type: "button", textContent: text });
  idea.onclick = () => rank((element("sentence").value = text));
  element("ideas").append(idea);
}
element("sentence").oninput = (event) => rank(event.target.value);
element("form").onsubmit = (event) => { event.preventDefault(); rank(element("sentence").value); };
element("examples").onclick = takeExamples;
element("clear").onclick = () => drop([...images]);
element("files").onchange = (event) => { add([...event.target.files]); event.target.value = ""; };
document.ondragover = (event) => { event.preventDefault(); document.body.classList.add("over"); };
document.ondragleave = (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); };
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add([...event.dataTransfer.files]);
};
document.onpaste = (event) => { if (event.clipboardData.files.length) add([...event.clipboardData.files]); };

say("Loading the model…");
try {
  encoder = await Encoder.load("model", showProgress);
  show();
  encodeImages();
  rank(element("sentence").value);
} catch (error) {
  explain(error);
} finally {
  element("progress").hidden = true;
}
