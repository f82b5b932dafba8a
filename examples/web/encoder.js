// Images and sentences as unit vectors, from the files that `tf-clip export litert` writes.

const EXPORT = "tf-clip export litert model --parts image,text_from_utf8 --quantization dynamic_int8";
const AGAIN = `${EXPORT} --overwrite`;

// Larger images are brought to this many pixels by the browser first: resizing takes some 12 bytes of memory for each.
const MOST_PIXELS = 2 ** 20;

// A problem that the reader can do something about, and the command that does it.
export class Problem extends Error {
  constructor(message, command = "") {
    super(message);
    this.command = command;
  }
}

export class Encoder {
  #Tensor;
  #image;
  #text;

  // `onProgress` is told how many bytes of the model have come, and how many there are, 0 if that is unknown.
  static async load(folder, onProgress) {
    const encoder = new Encoder(), download = new AbortController();
    try {
      const files = [`${folder}/image_encoder.tflite`, `${folder}/text_from_utf8.tflite`];
      await encoder.#start(fetchAll(files, onProgress, download.signal));
      return encoder;
    } catch (error) {
      download.abort();
      throw error;
    }
  }

  async #start(bytes) {
    bytes.catch(() => {}); // told below
    const litert = await import("@litertjs/core").catch(() => {
      throw new Problem("LiteRT.js is not in this folder. Install it there, and load the page again:", "npm ci");
    });
    // Threads need a server that isolates the page (headers COOP and COEP); without, one core does the work.
    const threads = crossOriginIsolated && (await litert.supportsFeature("relaxedSimd"));
    await litert.loadLiteRt(new URL("node_modules/@litertjs/core/wasm/", document.baseURI).href, { threads });
    this.#Tensor = litert.Tensor;
    const models = [];
    for (const file of await bytes) models.push(await litert.loadAndCompile(file, { accelerator: "wasm" }));
    [this.#image, this.#text] = models;
    this.#check();
  }

  #check() {
    const image = this.#image.signatures, text = this.#text.signatures;
    if (!image.encode_pixels || !image.resize_image || !text.encode_utf8) {
      throw new Problem("The model’s files lack what this page asks for: any recipe but int8 has it.", AGAIN);
    }
    const widths = [image.encode_pixels, text.encode_utf8].map(
      (signature) => signature.getOutputDetails().find(({ name }) => name.endsWith("_embeds")).shape.at(-1),
    );
    if (widths[0] !== widths[1]) throw new Problem("The model’s two files are of different models. Export both:", AGAIN);
  }

  // Takes a file or blob; gives its vector.
  async image(blob) {
    const { pixels, height, width } = await rgbOf(blob);
    const image = new this.#Tensor(pixels, [height, width, 3]);
    // Its own `run` wants a tensor of the file's shape, where any size is -1. The runtime below takes any size.
    const { signatureIndex } = this.#image.signatures.resize_image;
    const outputs = await this.#image.liteRtCompiledModel.run(signatureIndex, [image.liteRtTensorBuffer]);
    image.delete();
    return this.#answer(this.#image, "encode_pixels", { image_pixels: new this.#Tensor(outputs[0]) }, ({ image_embeds }) =>
      image_embeds.toTypedArray(),
    );
  }

  // Takes a sentence; gives its vector, and whether some of it had to be left out.
  async sentence(text) {
    const bytes = new TextEncoder().encode(text);
    const [room] = this.#text.signatures.encode_utf8.getInputDetails().find(({ name }) => name === "utf8").shape;
    const utf8 = new Uint8Array(room);
    utf8.set(bytes.subarray(0, room));
    const inputs = { utf8: new this.#Tensor(utf8, [room]), length: new this.#Tensor(Int32Array.of(bytes.length), [1]) };
    return this.#answer(this.#text, "encode_utf8", inputs, ({ text_embeds, is_cut }) => ({
      embeds: text_embeds.toTypedArray(),
      isCut: is_cut.toTypedArray()[0] === 1,
    }));
  }

  // LiteRT's memory is not the browser's to tidy up.
  async #answer(model, signature, inputs, read) {
    const outputs = await model.run(signature, inputs);
    const answer = read(outputs);
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.delete();
    return answer;
  }
}

export function cosine(one, other) {
  return one.reduce((sum, value, index) => sum + value * other[index], 0);
}

// As the processor decodes: turned upright, color profiles left alone, transparent parts on white.
async function rgbOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < pixels.length; from += 4) {
    pixels[to++] = data[from];
    pixels[to++] = data[from + 1];
    pixels[to++] = data[from + 2];
  }
  return { pixels, height, width };
}

async function fetchAll(addresses, onProgress, signal) {
  const responses = await Promise.all(addresses.map((address) => fetchOne(address, signal)));
  const sizes = responses.map((response) => Number(response.headers.get("Content-Length")));
  const total = sizes.every(Boolean) ? sizes.reduce((sum, size) => sum + size) : 0;
  let loaded = 0;
  return Promise.all(
    responses.map(async (response) => {
      const chunks = [];
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) return new Uint8Array(await new Blob(chunks).arrayBuffer());
        chunks.push(value);
        onProgress((loaded += value.length), total);
      }
    }),
  );
}

async function fetchOne(address, signal) {
  const response = await fetch(address, { signal }).catch(() => {
    throw new Problem("The server of this page does not answer any more. Start it again, and load the page again.");
  });
  if (response.ok) return response;
  throw new Problem(`There is no model here yet (${address}: ${response.status}). Write it in this page’s folder:`, EXPORT);
}
