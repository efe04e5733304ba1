"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const learned = data.codecs.filter((codec) => codec.name !== "JPEG");
  const stops = [{ name: "original", title: "Original" }, ...data.codecs];
  const METRICS = { psnr: "PSNR (dB)", ms_ssim: "MS-SSIM (dB)" };
  // Dark to light, growing in lightness only, so that it reads without colour vision too.
  const RAMP = [[13, 8, 60], [84, 15, 109], [153, 38, 103], [214, 72, 74], [247, 131, 32], [252, 225, 110]];

  // codec: index into stops; matched: the learned codec looked at last, which JPEG follows.
  const state = { photo: 0, rate: 0, codec: Math.min(1, stops.length - 1), matched: learned[0].name, split: 0, bits: false, metric: "psnr", zoom: "fit" };

  const photo = () => data.photos[state.photo];
  const stop = () => stops[state.codec];

  /** The entry of a learned codec whose lambda is nearest to that of the slider. */
  function learnedPoint(name, lambda = lambdaNow()) {
    const distance = (point) => Math.abs(Math.log(point.lmbda / lambda));
    const own = photo().points.filter((point) => point.codec === name);
    return own.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  }

  const lambdaNow = () => data.lambdas[state.rate];

  /** Whether a codec has no point at the slider's lambda, so that its nearest one stands in. */
  const elsewhere = (point) => point.lmbda !== undefined && point.lmbda !== lambdaNow();

  /** The entry that a stop of the codec slider shows; null for the original. */
  function pointOf(name) {
    if (name === "original") return null;
    if (name !== "JPEG") return learnedPoint(name);
    const quality = learnedPoint(state.matched).jpeg;
    return { codec: "JPEG", quality, ...photo().jpegs[quality] };
  }

  const titleOf = (name) => stops.find((one) => one.name === name).title;
  const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const bytes = (count) => count.toLocaleString("en-US");

  // The image ----------------------------------------------------------------------------

  /** One layer per codec, all loaded: flipping is a change of visibility and cannot flicker. */
  function loadLayers() {
    stops.forEach((one, k) => {
      const point = pointOf(one.name);
      const layer = $("layers").children[k];
      const source = point ? point.image : photo().original;
      if (layer.getAttribute("src") !== source) layer.src = source;
      layer.alt = point ? `${photo().name}, decoded from ${one.title}` : `${photo().name}, original`;
    });
    if ($("wipe").getAttribute("src") !== photo().original) $("wipe").src = photo().original;
  }

  function sizeStage() {
    const { width, height } = photo();
    const stage = $("stage");
    const fit = state.zoom === "fit";
    // "Fit" also leaves room for the controls in the window: a tall image is at most 56 % of it.
    stage.style.width = fit ? `min(100%, ${((56 * width) / height).toFixed(2)}vh)` : `${width * Number(state.zoom)}px`;
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.classList.toggle("pixels", !fit && Number(state.zoom) > 1);
  }

  function showLayer() {
    [...$("layers").children].forEach((layer, k) => layer.classList.toggle("now", k === state.codec));
    const wiping = state.split > 0 && stop().name !== "original";
    $("wipe").hidden = !wiping;
    $("wipe").style.clipPath = `inset(0 ${100 - state.split}% 0 0)`;
  }

  function caption() {
    const point = pointOf(stop().name);
    const place = $("caption");
    if (!point) {
      place.textContent = `${photo().name}: original, ${photo().width} × ${photo().height} pixels, 24 bits per pixel before compression.`;
      return;
    }
    const how = point.codec === "JPEG" ? `quality ${point.quality}, matched to ${titleOf(state.matched)}` : `lambda ${point.lmbda}${elsewhere(point) ? ` (there is none of ${lambdaNow()})` : ""}`;
    const similarity = point.ms_ssim === null ? "" : `, MS-SSIM ${fixed(point.ms_ssim, 2)} dB`;
    const file = Object.assign(document.createElement("a"), { href: point.file, download: "", textContent: `${bytes(point.bytes)} bytes` });
    place.replaceChildren(`${photo().name}: ${stop().title}, ${how}. `, file, `, ${fixed(point.bpp, 3)} bpp, PSNR ${fixed(point.psnr, 2)} dB${similarity}.`);
  }

  // Bits per position --------------------------------------------------------------------

  /** What the lightest colour stands for: 99 % of the positions, over all codecs at this rate. */
  function topOfScale() {
    const all = learned.flatMap((codec) => learnedPoint(codec.name).bits).sort((a, b) => a - b);
    return Math.max(1, all[Math.floor(0.99 * (all.length - 1))]);
  }

  function colour(share) {
    const at = Math.min(1, share) * (RAMP.length - 1);
    const k = Math.min(RAMP.length - 2, Math.floor(at));
    return RAMP[k].map((low, c) => Math.round(low + (at - k) * (RAMP[k + 1][c] - low)));
  }

  function overlay() {
    const point = pointOf(stop().name);
    const counted = state.bits && point !== null && point.bits !== undefined;
    const canvas = $("overlay");
    canvas.hidden = $("legend").hidden = !counted;
    readout(null);
    if (!counted) return;
    const top = topOfScale();
    canvas.width = point.columns;
    canvas.height = point.rows;
    const image = new ImageData(point.columns, point.rows);
    point.bits.forEach((bits, k) => image.data.set([...colour(bits / top), 255], 4 * k));
    canvas.getContext("2d").putImageData(image, 0, 0);
    // The grid covers the padded image; what lies beyond the edge is cut off by the stage.
    canvas.style.width = `${(1600 * point.columns) / photo().width}%`;
    canvas.style.height = `${(1600 * point.rows) / photo().height}%`;
    // As a share of the canvas, which is wider than the image where that is padded.
    canvas.style.clipPath = `inset(0 0 0 ${(state.split * photo().width) / (16 * point.columns)}%)`;
    $("top").textContent = `${top} bits or more`;
  }

  function readout(event) {
    const place = $("readout");
    const point = pointOf(stop().name);
    if (!state.bits) { place.textContent = "Shows which 16 × 16 blocks the file spends its bits on."; return; }
    if (!point) { place.textContent = "The original is not coded: choose a learned codec."; return; }
    if (!point.bits) { place.textContent = "Not counted for JPEG: choose a learned codec."; return; }
    const count = point.bits.length;
    const mean = point.bits.reduce((sum, bits) => sum + bits, 0) / count;
    place.textContent = `Mean ${mean.toFixed(1)}, largest ${Math.max(...point.bits)} bits in a block of 256 pixels. Point at a block for its bits.`;
    if (!event) return;
    const box = $("stage").getBoundingClientRect();
    const column = Math.floor((((event.clientX - box.left) / box.width) * photo().width) / 16);
    const row = Math.floor((((event.clientY - box.top) / box.height) * photo().height) / 16);
    const bits = point.bits[row * point.columns + column];
    if (bits !== undefined) place.textContent = `Block at row ${row}, column ${column}: ${bits} bits, ${(bits / 256).toFixed(2)} bpp.`;
  }

  // The curve ----------------------------------------------------------------------------

  const BOX = { left: 44, right: 370, top: 12, bottom: 248 };

  function svg(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** Round values that divide [low, high] into about `count` parts. */
  function ticks(low, high, count) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) found.push([k * step, (k * step).toFixed(digits)]);
    return found;
  }

  function marker(kind, x, y, size) {
    const shapes = {
      s: `M${x - size},${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
      D: `M${x},${y - 1.3 * size}L${x + 1.3 * size},${y}L${x},${y + 1.3 * size}L${x - 1.3 * size},${y}z`,
      "^": `M${x},${y - 1.2 * size}L${x + 1.2 * size},${y + size}H${x - 1.2 * size}z`,
    };
    const dot = kind === "." ? 0.6 * size : size;
    const circle = `M${x - dot},${y}a${dot},${dot} 0 1,0 ${2 * dot},0a${dot},${dot} 0 1,0 ${-2 * dot},0`;
    return shapes[kind] || circle;
  }

  function curves() {
    const finite = (point) => point[state.metric] !== null;
    const byRate = (a, b) => a.bpp - b.bpp;
    return data.codecs.map((codec) => ({
      codec,
      points: (codec.name === "JPEG" ? photo().jpeg_curve : photo().points.filter((p) => p.codec === codec.name)).filter(finite).sort(byRate),
    }));
  }

  function plot() {
    const root = $("plot");
    root.replaceChildren();
    const lines = curves();
    const ours = lines.filter((line) => line.codec.name !== "JPEG").flatMap((line) => line.points);
    if (!ours.length) {
      root.append(svg("text", { x: 190, y: 140, "text-anchor": "middle" }, "MS-SSIM needs sides of 161 pixels or more."));
      $("plot-label").textContent = "There is no curve for this photograph and metric.";
      return;
    }
    // JPEG's curve goes on far beyond the rates of interest: the learned codecs set the range.
    const highest = 1.25 * Math.max(...ours.map((p) => p.bpp));
    const now = pointOf(stop().name);
    const shown = lines.flatMap((line) => line.points).filter((p) => p.bpp <= highest).concat(now && now[state.metric] !== null ? [now] : []);
    const xTop = Math.max(highest, ...shown.map((p) => p.bpp));
    const qualities = shown.map((p) => p[state.metric]);
    const margin = 0.06 * (Math.max(...qualities) - Math.min(...qualities)) || 1;
    const [low, high] = [Math.min(...qualities) - margin, Math.max(...qualities) + margin];
    const x = (bpp) => BOX.left + (bpp / xTop) * (BOX.right - BOX.left);
    const y = (value) => BOX.bottom - ((value - low) / (high - low)) * (BOX.bottom - BOX.top);
    for (const [value, text] of ticks(0, xTop, 6)) {
      root.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: BOX.top, y2: BOX.bottom }));
      root.append(svg("text", { x: x(value), y: BOX.bottom + 16, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of ticks(low, high, 6)) {
      root.append(svg("line", { class: "grid", x1: BOX.left, x2: BOX.right, y1: y(value), y2: y(value) }));
      root.append(svg("text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
    }
    root.append(svg("text", { x: (BOX.left + BOX.right) / 2, y: 284, "text-anchor": "middle" }, "rate (bits per pixel)"));
    root.append(svg("text", { transform: `translate(11 ${(BOX.top + BOX.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, METRICS[state.metric]));
    for (const { codec, points } of lines) root.append(series(codec, points.filter((p) => p.bpp <= xTop), x, y));
    if (now && now[state.metric] !== null) {
      root.append(svg("circle", { class: "ring", cx: x(now.bpp), cy: y(now[state.metric]), r: 8.5 }));
    }
    $("plot-label").textContent = now
      ? `${METRICS[state.metric]} over rate on ${photo().name}. The ring marks ${stop().title}: ${fixed(now.bpp, 3)} bpp, ${fixed(now[state.metric], 2)} dB.`
      : `${METRICS[state.metric]} over rate on ${photo().name}. The original has no point on it.`;
  }

  function series(codec, points, x, y) {
    const group = svg("g", { class: `series ${codec.name}`, style: `--own: ${codec.color}` });
    const at = (p) => `${x(p.bpp).toFixed(1)},${y(p[state.metric]).toFixed(1)}`;
    if (points.length > 1) group.append(svg("path", { class: "curve", d: `M${points.map(at).join("L")}` }));
    for (const p of points) {
      const mark = svg("path", { class: "mark", d: marker(codec.marker, x(p.bpp), y(p[state.metric]), 3.6) });
      const name = codec.name === "JPEG" ? "JPEG" : `${codec.title}, lambda ${p.lmbda}`;
      mark.append(svg("title", {}, `${name}: ${fixed(p.bpp, 3)} bpp, ${fixed(p[state.metric], 2)} dB`));
      if (codec.name !== "JPEG") {
        mark.classList.add("go");
        mark.addEventListener("click", () => {
          state.rate = data.lambdas.indexOf(p.lmbda);
          choose(stops.findIndex((one) => one.name === codec.name));
        });
      }
      group.append(mark);
    }
    return group;
  }

  function table() {
    const rows = data.codecs.map((codec) => {
      const point = pointOf(codec.name);
      const row = document.createElement("tr");
      if (codec.name === stop().name) row.setAttribute("aria-current", "true");
      const head = Object.assign(document.createElement("th"), { scope: "row" });
      const swatch = Object.assign(document.createElement("span"), { className: "swatch series" });
      swatch.style.setProperty("--own", codec.color);
      head.append(swatch, codec.title);
      if (elsewhere(point)) head.append(Object.assign(document.createElement("small"), { textContent: `at lambda ${point.lmbda}` }));
      row.append(head);
      for (const text of [bytes(point.bytes), fixed(point.bpp, 3), fixed(point.psnr, 2), fixed(point.ms_ssim, 2)]) {
        row.append(Object.assign(document.createElement("td"), { textContent: text }));
      }
      return row;
    });
    $("table").replaceChildren(...rows);
  }

  // Controls -----------------------------------------------------------------------------

  function controls() {
    $("codec").value = state.codec;
    $("codec").setAttribute("aria-valuetext", stop().title);
    $("codec-now").textContent = stop().title;
    $("rate").value = state.rate;
    $("rate").setAttribute("aria-valuetext", `lambda ${lambdaNow()}`);
    $("rate-now").textContent = `${lambdaNow()}`;
    $("split-now").textContent = `${state.split} %`;
    $("split").disabled = stop().name === "original";
    [...$("stops").children].forEach((button, k) => button.setAttribute("aria-pressed", String(k === state.codec)));
  }

  function show() {
    loadLayers();
    sizeStage();
    showLayer();
    controls();
    caption();
    overlay();
    plot();
    table();
  }

  function choose(codec) {
    state.codec = codec;
    if (learned.some((one) => one.name === stop().name)) state.matched = stop().name;
    show();
  }

  function start() {
    data.photos.forEach((one, k) => $("photo").append(new Option(one.name, k)));
    $("codec").max = stops.length - 1;
    document.body.style.setProperty("--stops", stops.length);
    $("rate").max = data.lambdas.length - 1;
    $("rate").disabled = data.lambdas.length < 2;
    stops.forEach((one, k) => {
      $("layers").append(document.createElement("img"));
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: one.title });
      button.addEventListener("click", () => choose(k));
      $("stops").append(button);
    });
    $("ramp").style.background = `linear-gradient(90deg, ${RAMP.map((rgb) => `rgb(${rgb})`).join(", ")})`;
    $("codec").addEventListener("input", (event) => choose(Number(event.target.value)));
    const bind = (id, name, read) => $(id).addEventListener("input", (event) => { state[name] = read(event.target); show(); });
    bind("photo", "photo", (control) => Number(control.value));
    bind("rate", "rate", (control) => Number(control.value));
    bind("split", "split", (control) => Number(control.value));
    bind("bits", "bits", (control) => control.checked);
    bind("metric", "metric", (control) => control.value);
    bind("zoom", "zoom", (control) => control.value);
    // The browser may have kept the settings of the controls over a reload.
    for (const id of ["photo", "zoom", "metric"]) $(id).selectedIndex = 0;
    $("split").value = 0;
    $("bits").checked = false;
    $("stage").addEventListener("pointermove", readout);
    $("stage").addEventListener("pointerdown", readout);
    $("stage").addEventListener("pointerleave", () => readout(null));
    show();
  }

  start();
})();
