"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const columns = data.columns, records = data.rows, lines = data.lines;
  const place = new Map(columns.map((column, i) => [column.name, i]));
  const value = (record, name) => (place.has(name) ? record[place.get(name)] : null);
  const shown = columns.filter((column) => column.shown);
  const state = { order: records.map((_, i) => i), at: 0, sort: "rank", down: false, view: null, spectrum: null, width: data.smooth_px,
                  raw: true, smooth: true, error: false, model: true, residual: true, lines: true, observed: false, hover: null, drag: null, index: -1 };

  // ---------------------------------------------------------------- numbers
  const DECIMALS = { z: 4, ra: 5, dec: 5, snr: 1, snr_b: 1, snr_r: 1, snr_z: 1, score: 2, artefact: 2, chi2_dof: 2, worst_wave_rest: 0, ebv: 3, match_sep_arcsec: 2 };
  function format(name, x) {
    if (x === null || x === undefined || x === "") return "–";
    if (typeof x !== "number") return String(x);
    if (name === "flags") return data.flags.filter(([bit]) => x & (1 << bit)).map(([, flag]) => flag).join(", ") || "none";
    if (name in DECIMALS) return x.toFixed(DECIMALS[name]);
    if (name.startsWith("mag_")) return x.toFixed(2);
    return significant(x);
  }
  function significant(x) {
    if (!Number.isFinite(x)) return "–";
    if (Number.isInteger(x)) return String(x);
    return Math.abs(x) >= 1e6 || Math.abs(x) < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(3)));
  }
  function make(tag, text, kind) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  }

  // ---------------------------------------------------------------- spectra: float16 arrays, base64
  const half = new Float32Array(65536);
  for (let i = 0; i < 65536; i++) {
    const exponent = (i >> 10) & 31, fraction = i & 1023, sign = i & 32768 ? -1 : 1;
    half[i] = sign * (exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
  function decode(text, scale) {
    if (!text) return null;
    const bytes = atob(text), n = bytes.length >> 1, out = new Float32Array(n);
    for (let i = 0; i < n; i++) out[i] = half[bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)] * scale;
    return out;
  }
  // A page from disk may not read files, but it may load scripts: each calls qadLoaded with one JSON text.
  const stores = { spectra: { size: data.chunk, kept: 64, parts: new Map() }, sketches: { size: data.sketches, kept: 64, parts: new Map() } };
  window.qadLoaded = (kind, number, text) => {
    const part = stores[kind].parts.get(number);
    if (part) { part.items = JSON.parse(text); part.waiting.forEach((take) => take()); part.waiting = []; }
  };
  function fetchItem(kind, index, take) {
    const store = stores[kind], number = Math.floor(index / store.size);
    let part = store.parts.get(number);
    if (!part) {
      part = { items: null, waiting: [] };
      store.parts.set(number, part);
      const script = document.createElement("script");
      script.src = "data/" + kind + "-" + String(number).padStart(5, "0") + ".js";
      script.onload = () => script.remove();
      script.onerror = () => { script.remove(); part.items = []; part.lost = true; part.waiting.forEach((go) => go()); part.waiting = []; };
      document.head.append(script);
      for (const old of store.parts.keys()) { if (store.parts.size <= store.kept) break; if (store.parts.get(old).items) store.parts.delete(old); }
    } else { store.parts.delete(number); store.parts.set(number, part); }
    const give = () => take(part.items[index % store.size] || null, Boolean(part.lost));
    if (part.items) give(); else part.waiting.push(give);
  }
  function unpack(stored) {
    if (!stored) return null;
    const flux = decode(stored.flux, stored.scale), n = flux.length, wave = new Float64Array(n);
    for (let i = 0; i < n; i++) wave[i] = stored.log ? 10 ** (stored.first + i * stored.step) : stored.first + i * stored.step;
    return { wave, flux, z: stored.z, note: stored.note, sigma: decode(stored.sigma, stored.scale),
             recon: decode(stored.recon, stored.scale), scatter: decode(stored.scatter, stored.scale), dereddened: stored.dereddened };
  }
  function smoothed(spectrum, width) {
    const n = spectrum.flux.length, weight = new Float64Array(n + 1), sum = new Float64Array(n + 1);
    for (let i = 0; i < n; i++) {
      const w = spectrum.sigma[i] > 0 ? 1 / (spectrum.sigma[i] * spectrum.sigma[i]) : 0;
      weight[i + 1] = weight[i] + w;
      sum[i + 1] = sum[i] + w * (w ? spectrum.flux[i] : 0);
    }
    const reach = (width - 1) >> 1, flux = new Float32Array(n), sigma = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const a = Math.max(0, i - reach), b = Math.min(n, i + reach + 1), w = weight[b] - weight[a];
      const good = spectrum.sigma[i] > 0 && w > 0;
      flux[i] = good ? (sum[b] - sum[a]) / w : NaN;
      sigma[i] = good ? 1 / Math.sqrt(w) : NaN;
    }
    return { flux, sigma };
  }
  function significance(spectrum, width) {
    if (!spectrum.recon) return null;
    const n = spectrum.flux.length, a = new Float64Array(n + 1), b = new Float64Array(n + 1), out = new Float32Array(n), reach = (width - 1) >> 1;
    for (let i = 0; i < n; i++) {
      const s = spectrum.sigma[i], m = spectrum.scatter ? spectrum.scatter[i] : 0, w = s > 0 ? 1 / (s * s + m * m) : 0;
      a[i + 1] = a[i] + w;
      b[i + 1] = b[i] + (w ? w * (spectrum.flux[i] - spectrum.recon[i]) : 0);
    }
    for (let i = 0; i < n; i++) {
      const low = Math.max(0, i - reach), high = Math.min(n, i + reach + 1), w = a[high] - a[low];
      out[i] = spectrum.sigma[i] > 0 && w > 0 ? (b[high] - b[low]) / Math.sqrt(w) : NaN;
    }
    return out;
  }

  // ---------------------------------------------------------------- table
  const tokens = /([A-Za-z_0-9]+)(>=|<=|!=|=|>|<|~)("[^"]*"|\S+)|"([^"]*)"|(\S+)/g;
  function parseFilter(text) {
    const tests = [];
    let wrong = "";
    for (const [, name, operator, raw, quoted, word] of text.matchAll(tokens)) {
      if (name === undefined) {
        const needle = (quoted ?? word).toLowerCase();
        tests.push((record) => record.some((x) => x !== null && String(x).toLowerCase().includes(needle)));
      } else if (!place.has(name.toLowerCase())) {
        wrong = "no column " + name;
      } else {
        const index = place.get(name.toLowerCase()), wanted = raw.replace(/^"|"$/g, "");
        tests.push((record) => compare(record[index], operator, wanted));
      }
    }
    return { tests, wrong };
  }
  function compare(x, operator, wanted) {
    if (operator === "~") return x !== null && String(x).toLowerCase().includes(wanted.toLowerCase());
    if (x === null) return operator === "!=";
    const number = Number(wanted), numeric = typeof x === "number" && wanted !== "" && !Number.isNaN(number);
    const a = numeric ? x : String(x).toLowerCase(), b = numeric ? number : wanted.toLowerCase();
    return { ">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b, "=": a === b, "!=": a !== b }[operator];
  }
  function arrange() {
    const { tests, wrong } = parseFilter(byId("filter").value), column = place.get(state.sort), current = state.order[state.at];
    const isText = !columns[column].numeric;
    state.order = records.map((_, i) => i).filter((i) => tests.every((test) => test(records[i])));
    state.order.sort((i, j) => {
      const a = records[i][column], b = records[j][column];
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      const ahead = isText ? (a.length - b.length) * (columns[column].name === "targetid") || (a < b ? -1 : a > b ? 1 : 0) : a - b;
      return (state.down ? -ahead : ahead) || i - j;
    });
    state.at = Math.max(0, state.order.indexOf(current));
    if (state.at * ROW < list.scrollTop || (state.at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, (state.at - 3) * ROW);
    byId("filter").classList.toggle("wrong", Boolean(wrong));
    byId("count").textContent = wrong || state.order.length + " of " + records.length;
    drawRows();
    choose(state.at, false);
  }
  function drawHead() {
    const head = byId("head");
    head.replaceChildren();
    for (const column of shown) {
      const cell = make("th", undefined, column.numeric ? "number" : ""), button = make("button", column.label);
      cell.scope = "col";
      button.type = "button";
      button.title = column.description + (column.unit ? " (" + column.unit + ")" : "");
      if (column.name === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.addEventListener("click", () => {
        state.down = column.name === state.sort ? !state.down : false;
        state.sort = column.name;
        drawHead();
        arrange();
      });
      cell.append(button);
      head.append(cell);
      if (column.name === "targetid") {
        const sketch = make("th");
        sketch.append(make("span", "spectrum"));
        head.append(sketch);
      }
    }
  }
  const OVER = 30;
  let ROW = 38; // pixels of a row; fonts and zoom make it another: measured when rows are drawn
  let slice = [0, 0];
  const list = byId("list");
  function drawRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - OVER);
    const last = Math.min(state.order.length, first + Math.ceil((list.clientHeight || 800) / ROW) + 2 * OVER);
    slice = [first, last];
    const rows = [];
    for (let at = first; at < last; at++) rows.push(makeRow(state.order[at], at));
    byId("rows").replaceChildren(gap(first * ROW), ...rows, gap((state.order.length - last) * ROW));
    if (rows.length && rows[0].offsetHeight && rows[0].offsetHeight !== ROW) { ROW = rows[0].offsetHeight; drawRows(); return; }
    byId("table").setAttribute("aria-rowcount", state.order.length + 1);
    byId("none").hidden = state.order.length > 0;
  }
  function gap(height) {
    const row = make("tr", undefined, "gap");
    row.setAttribute("aria-hidden", "true");
    row.style.height = height + "px";
    row.hidden = height === 0;
    return row;
  }
  function makeRow(index, at) {
    const row = make("tr"), record = records[index];
    row.dataset.index = index;
    row.setAttribute("aria-rowindex", at + 2);
    row.setAttribute("aria-selected", String(index === state.index));
    for (const column of shown) {
      const x = value(record, column.name), cell = make("td", undefined, column.numeric ? "number" : column.name === "reason" ? "text" : "");
      if (column.name === "targetid") {
        const button = make("button", x, "target");
        button.type = "button";
        cell.append(button);
      } else if (column.name === "reason") {
        const text = make("div", format(column.name, x));
        text.title = x || "";
        cell.append(text);
      } else cell.textContent = format(column.name, x);
      if (column.name === "artefact" && x >= 0.5) cell.className = "number warn";
      row.append(cell);
      if (column.name === "targetid") {
        const small = make("td"), canvas = make("canvas");
        canvas.setAttribute("aria-hidden", "true");
        canvas.dataset.index = index;
        small.append(canvas);
        row.append(small);
        fetchItem("sketches", index, (stored) => sketch(canvas, stored));
      }
    }
    row.addEventListener("click", () => choose(state.order.indexOf(index), false));
    return row;
  }
  let scrolling = false;
  list.addEventListener("scroll", () => {
    if (scrolling) return;
    scrolling = true;
    requestAnimationFrame(() => {
      scrolling = false;
      const top = Math.floor(list.scrollTop / ROW), bottom = top + Math.ceil(list.clientHeight / ROW);
      if ((top < slice[0] + 5 && slice[0] > 0) || (bottom > slice[1] - 5 && slice[1] < state.order.length)) drawRows();
    });
  });
  function sketch(canvas, stored) {
    if (!stored) return;
    const ratio = window.devicePixelRatio || 1, width = 110, height = 30, pen = canvas.getContext("2d");
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    pen.scale(ratio, ratio);
    const stroke = (text, style) => {
      const bytes = atob(text);
      pen.beginPath();
      let drawing = false;
      for (let x = 0; x < bytes.length; x++) {
        const level = bytes.charCodeAt(x);
        if (level) { const y = height - 1.5 - ((level - 1) / 254) * (height - 3); if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y); drawing = true; } else drawing = false;
      }
      pen.strokeStyle = style;
      pen.lineWidth = 1;
      pen.stroke();
    };
    stroke(stored.flux, colour("flux"));
    if (stored.recon) stroke(stored.recon, colour("model"));
  }
  function span(values, more, sigma) {
    const sorted = [...values].filter(Number.isFinite).sort((a, b) => a - b), at = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
    if (!sorted.length) return [0, 1];
    let low = Math.min(0, at(0.005)), high = at(0.995);
    // narrow lines stand out of any percentile; a cosmic must not flatten all else
    let peak = -Infinity;
    values.forEach((f, i) => { if (f > peak && (!sigma || f > 5 * sigma[i])) peak = f; });
    high = Math.max(high, Math.min(peak, 3 * high));
    const top = Math.max(...[...more].filter(Number.isFinite), -Infinity);
    if (Number.isFinite(top)) high = Math.max(high, Math.min(top, 1.5 * high));
    return high > low ? [low, high + 0.06 * (high - low)] : [low, low + 1];
  }

  // ---------------------------------------------------------------- one candidate
  function choose(at, scroll) {
    if (!state.order.length) { state.spectrum = null; state.index = -1; draw(); return; }
    state.at = Math.min(Math.max(at, 0), state.order.length - 1);
    const index = state.order[state.at];
    if (scroll) {
      const top = state.at * ROW, head = byId("head").offsetHeight || 0;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight - head) list.scrollTop = top + ROW - list.clientHeight + head;
      if (state.at < slice[0] || state.at >= slice[1]) drawRows();
    }
    if (state.index !== index) {
      state.index = index;
      state.spectrum = null;
      state.view = null;
      state.hover = null;
      state.waiting = true;
      fetchItem("spectra", index, (stored, lost) => {
        if (state.index !== index) return;
        state.spectrum = unpack(stored);
        state.waiting = false;
        state.lost = lost;
        describe();
      });
    }
    for (const row of byId("rows").children) if (row.dataset.index !== undefined) row.setAttribute("aria-selected", String(Number(row.dataset.index) === index));
    describe();
    // the next one will be wanted
    if (state.at + 1 < state.order.length) fetchItem("spectra", state.order[state.at + 1], () => {});
  }
  function describe() {
    const index = state.index, record = records[index];
    const id = value(record, "targetid"), spectrum = state.spectrum;
    byId("target").textContent = "TARGETID " + id;
    byId("where").textContent = [value(record, "survey") + "/" + value(record, "program") + "/" + value(record, "healpix"),
      "z " + format("z", value(record, "z")), "S/N " + format("snr", value(record, "snr")), "rank " + value(record, "rank"),
      "score " + format("score", value(record, "score")), "p " + format("p_value", value(record, "p_value"))].join(" · ");
    put("reason", value(record, "reason"));
    put("note", spectrum ? spectrum.note : state.waiting ? "" : state.lost ? "a file of this gallery's data folder is missing" : "no spectrum of this target in the work directory");
    document.documentElement.dataset.drawn = state.waiting ? "" : id;
    byId("position").textContent = state.at + 1 + " of " + state.order.length;
    byId("previous").disabled = state.at === 0;
    byId("next").disabled = state.at === state.order.length - 1;
    byId("plot").setAttribute("aria-label", "Spectrum of " + id + " at redshift " + format("z", value(record, "z")) + ". " + (value(record, "reason") || ""));
    history.replaceState(null, "", "#" + id);
    facts(record);
    showMarks();
    draw();
  }
  function put(id, text) {
    byId(id).hidden = !text;
    byId(id).textContent = text || "";
  }
  function facts(record) {
    const groups = [], used = new Set(["targetid", "survey", "program", "healpix", "reason"]);
    const take = (title, names) => {
      const rows = names.filter((name) => place.has(name) && !used.has(name) && value(record, name) !== null && value(record, name) !== "");
      rows.forEach((name) => used.add(name));
      if (rows.length) groups.push([title, rows.map((name) => [columns[place.get(name)], format(name, value(record, name))])]);
    };
    const views = columns.filter((column) => column.name.startsWith("view_")).map((column) => column.name.slice(5));
    take("Label", ["label", "label_comment", "label_who", "label_when"]);
    take("Score", ["rank", "score", "p_value", "score_sd", "artefact", "class_guess", "group", "chi2_dof", "worst_wave_rest", "flags"]);
    const box = byId("facts");
    box.replaceChildren(...groups.map(section));
    const bars = views.filter((name) => value(record, "p_" + name) !== null);
    if (bars.length) box.append(viewSection(record, bars));
    views.forEach((name) => { used.add("view_" + name); used.add("p_" + name); });
    groups.length = 0;
    take("Matches", columns.map((column) => column.name).filter((name) => name === "matches" || name.startsWith("cat_")));
    take("Position", ["ra", "dec"]);
    take("Photometry, AB", ["mag_g", "mag_r", "mag_z", "mag_w1", "mag_w2", "ebv", "morphtype", "pmra", "pmdec", "parallax"]);
    take("Spectrum", columns.map((column) => column.name));
    for (const [title, rows] of groups) {
      const element = section([title, rows]);
      if (title === "Position") element.append(skyLink(record));
      box.append(element);
    }
  }
  function section([title, rows]) {
    const element = make("section"), list = make("dl");
    for (const [column, text] of rows) {
      const name = make("dt", column.label);
      name.title = column.description;
      list.append(name, make("dd", text + (column.unit && text !== "–" && column.unit.length < 9 ? " " + column.unit.replace("Angstrom", "Å") : "")));
    }
    element.append(make("h3", title), list);
    return element;
  }
  function viewSection(record, names) {
    const element = make("section"), list = make("dl");
    for (const name of names) {
      const p = value(record, "p_" + name), cell = make("dd"), bar = make("span", undefined, "bar");
      bar.style.width = Math.min(8, Math.max(0, -Math.log10(Math.max(p, 1e-8)))) * 0.8 + "em";
      cell.append(bar, "p " + significant(p));
      list.append(make("dt", name), cell);
    }
    element.append(make("h3", "Views"), list);
    return element;
  }
  function skyLink(record) {
    const paragraph = make("p"), link = make("a", "Legacy Surveys sky viewer");
    const query = new URLSearchParams({ ra: value(record, "ra"), dec: value(record, "dec"), layer: "ls-dr9", zoom: 15, mark: value(record, "ra") + "," + value(record, "dec") });
    link.href = "https://www.legacysurvey.org/viewer?" + query;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    paragraph.append(link);
    return paragraph;
  }

  // ---------------------------------------------------------------- plot
  const canvas = byId("plot");
  const box = { left: 62, right: 14, top: 44, bottom: 40, gap: 14 };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  function extent(spectrum) {
    let first = spectrum.sigma.findIndex((s) => s > 0), last = spectrum.sigma.length - 1;
    while (last > first && !(spectrum.sigma[last] > 0)) last--;
    return first < 0 ? [spectrum.wave[0], spectrum.wave[spectrum.wave.length - 1]] : [spectrum.wave[first], spectrum.wave[last]];
  }
  function niceTicks(low, high, wanted) {
    const rough = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough), ticks = [];
    for (let t = Math.ceil(low / step) * step; t <= high * (1 + 1e-12); t += step) ticks.push(Math.abs(t) < step / 2 ? 0 : t);
    return { ticks, decimals: Math.max(0, -Math.floor(Math.log10(step))) };
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight, pen = canvas.getContext("2d");
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const spectrum = state.spectrum;
    byId("readout").textContent = "";
    if (!spectrum) return;
    const range = state.view || extent(spectrum), sigma = state.residual ? significance(spectrum, state.width) : null, soft = smoothed(spectrum, state.width);
    const wide = width - box.left - box.right, tall = height - box.top - box.bottom, lower = sigma ? Math.round(tall * 0.22) : 0;
    const upper = tall - lower - (sigma ? box.gap : 0), x = (w) => box.left + ((w - range[0]) / (range[1] - range[0])) * wide;
    let low = spectrum.wave.findIndex((w) => w >= range[0]), high = spectrum.wave.findIndex((w) => w > range[1]);
    if (low < 0) low = 0;
    if (high < 0) high = spectrum.wave.length;
    const part = (values) => (values ? values.subarray(low, high) : []);
    const reach = span(part(soft.flux), state.model ? part(spectrum.recon) : [], part(soft.sigma));
    const y = (f) => box.top + upper - ((f - reach[0]) / (reach[1] - reach[0])) * upper;
    const scene = { pen, spectrum, range, low, high, x, y, wide, upper, lower, width, height, soft, sigma };
    state.scene = scene;
    axes(scene, reach);
    if (state.lines) emission(scene);
    pen.save();
    pen.beginPath();
    pen.rect(box.left, box.top, wide, upper);
    pen.clip();
    if (state.model && spectrum.recon && spectrum.scatter) band(scene, spectrum.recon, spectrum.scatter, colour("model"), 0.16);
    if (state.raw) curve(scene, spectrum.flux, colour("raw"), 0.8, true);
    if (state.error) curve(scene, spectrum.sigma, colour("error"), 1, true);
    if (state.smooth) curve(scene, soft.flux, colour("flux"), 1.3, true);
    if (state.model && spectrum.recon) curve(scene, spectrum.recon, colour("model"), 1.5, false);
    pen.restore();
    if (sigma) residuals(scene);
    worst(scene);
    if (state.drag && state.drag.moved && !state.drag.pan) {
      pen.fillStyle = colour("accent");
      pen.globalAlpha = 0.15;
      pen.fillRect(Math.min(state.drag.x, state.drag.now), box.top, Math.abs(state.drag.now - state.drag.x), height - box.top - box.bottom);
      pen.globalAlpha = 1;
    }
    if (state.hover !== null) hover(scene);
  }
  function axes({ pen, range, x, y, wide, upper, lower, height, spectrum }, reach) {
    const ink = colour("soft"), grid = colour("line"), shift = 1 + spectrum.z, bottom = height - box.bottom;
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 1;
    const horizontal = niceTicks(reach[0], reach[1], Math.max(3, upper / 40));
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of horizontal.ticks) {
      pen.strokeStyle = grid;
      pen.beginPath(); pen.moveTo(box.left, y(tick)); pen.lineTo(box.left + wide, y(tick)); pen.stroke();
      pen.fillStyle = ink;
      pen.fillText(tick.toFixed(horizontal.decimals), box.left - 7, y(tick));
    }
    const write = (factor, at, baseline, tickEnd, title) => {
      const { ticks, decimals } = niceTicks(range[0] / factor, range[1] / factor, wide / 95);
      const end = baseline === "bottom" ? box.left + wide - pen.measureText(title).width - 28 : Infinity;
      pen.textAlign = "center";
      pen.textBaseline = baseline;
      for (const tick of ticks) {
        const px = x(tick * factor);
        pen.strokeStyle = ink;
        pen.beginPath(); pen.moveTo(px, at); pen.lineTo(px, at + tickEnd); pen.stroke();
        pen.fillStyle = ink;
        if (px < end) pen.fillText(tick.toFixed(decimals), px, at + tickEnd * 1.6);
      }
      pen.textAlign = baseline === "bottom" ? "right" : "center";
      pen.fillText(title, baseline === "bottom" ? box.left + wide : box.left + wide / 2, at + (baseline === "bottom" ? -8 : 23));
    };
    const rest = "rest wavelength (Å, vacuum)", seen = "observed wavelength (Å, vacuum)";
    write(state.observed ? 1 : shift, bottom, "top", 5, state.observed ? seen : rest);
    write(state.observed ? shift : 1, box.top, "bottom", -5, state.observed ? rest : seen);
    pen.strokeStyle = ink;
    pen.strokeRect(box.left, box.top, wide, upper);
    if (lower) pen.strokeRect(box.left, bottom - lower, wide, lower);
    pen.save();
    pen.translate(13, box.top + upper / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillStyle = ink;
    pen.fillText("flux (10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹)" + (spectrum.dereddened ? ", dereddened" : ""), 0, 0);
    pen.restore();
  }
  function emission({ pen, spectrum, range, x, upper, wide }) {
    const taken = [[], []];
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const line of lines) {
      const w = line.wave * (1 + spectrum.z);
      if (w < range[0] || w > range[1]) continue;
      const px = x(w), half = pen.measureText(line.name).width / 2 + 3, at = Math.min(Math.max(px, box.left + half), box.left + wide - half);
      pen.strokeStyle = colour("emission");
      pen.globalAlpha = 0.5;
      pen.setLineDash([2, 4]);
      pen.beginPath(); pen.moveTo(px, box.top); pen.lineTo(px, box.top + upper); pen.stroke();
      pen.setLineDash([]);
      pen.globalAlpha = 1;
      const level = taken.findIndex((spans) => spans.every(([a, b]) => at + half < a || at - half > b));
      if (level < 0) continue;
      taken[level].push([at - half, at + half]);
      pen.fillStyle = colour("emission");
      pen.fillText(line.name, at, box.top + 4 + level * 14);
    }
  }
  function curve({ pen, spectrum, low, high, x, y }, values, style, thick, onlyGood) {
    pen.beginPath();
    let drawing = false;
    for (let i = Math.max(0, low - 1); i < Math.min(values.length, high + 1); i++) {
      const good = Number.isFinite(values[i]) && (!onlyGood || spectrum.sigma[i] > 0);
      if (good) { const px = x(spectrum.wave[i]), py = Math.min(Math.max(y(values[i]), -5000), 5000); if (drawing) pen.lineTo(px, py); else pen.moveTo(px, py); }
      drawing = good;
    }
    pen.strokeStyle = style;
    pen.lineWidth = thick;
    pen.lineJoin = "round";
    pen.stroke();
  }
  function band({ pen, spectrum, low, high, x, y }, centre, half, style, alpha) {
    pen.beginPath();
    for (let i = low; i < high; i++) pen.lineTo(x(spectrum.wave[i]), y(centre[i] + half[i]));
    for (let i = high - 1; i >= low; i--) pen.lineTo(x(spectrum.wave[i]), y(centre[i] - half[i]));
    pen.closePath();
    pen.fillStyle = style;
    pen.globalAlpha = alpha;
    pen.fill();
    pen.globalAlpha = 1;
  }
  function residuals({ pen, spectrum, low, high, x, wide, lower, height, sigma }) {
    const bottom = height - box.bottom, top = bottom - lower;
    let most = 5;
    for (let i = low; i < high; i++) if (Number.isFinite(sigma[i])) most = Math.max(most, Math.min(30, Math.abs(sigma[i])));
    const y = (s) => top + lower / 2 - (Math.max(-most, Math.min(most, s)) / (1.08 * most)) * (lower / 2);
    pen.save();
    pen.beginPath(); pen.rect(box.left, top, wide, lower); pen.clip();
    pen.fillStyle = colour("line");
    pen.globalAlpha = 0.6;
    pen.fillRect(box.left, y(3), wide, y(-3) - y(3));
    pen.globalAlpha = 1;
    for (let i = low; i < high; i++) {
      if (!Number.isFinite(sigma[i])) continue;
      const px = x(spectrum.wave[i]), next = i + 1 < spectrum.wave.length ? x(spectrum.wave[i + 1]) : px + 1;
      pen.fillStyle = Math.abs(sigma[i]) >= 5 ? colour("bad") : colour("flux");
      pen.fillRect(px, Math.min(y(0), y(sigma[i])), Math.max(1, next - px), Math.abs(y(sigma[i]) - y(0)));
    }
    pen.restore();
    pen.fillStyle = colour("soft");
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const mark = y(0) - y(3) > 13 ? 3 : Math.round(most);
    for (const s of [-mark, 0, mark]) pen.fillText(s > 0 ? "+" + s + "σ" : s < 0 ? "−" + -s + "σ" : "0", box.left - 7, y(s));
  }
  function worst({ pen, spectrum, x, wide, height }) {
    const rest = value(records[state.index], "worst_wave_rest");
    if (typeof rest !== "number") return;
    const px = x(rest * (1 + spectrum.z));
    if (px < box.left || px > box.left + wide) return;
    pen.fillStyle = colour("bad");
    pen.beginPath();
    pen.moveTo(px, height - box.bottom - 9); pen.lineTo(px - 6, height - box.bottom); pen.lineTo(px + 6, height - box.bottom);
    pen.fill();
  }
  function hover({ pen, spectrum, range, wide, x, y, height, soft, sigma, upper }) {
    const wave = range[0] + ((state.hover - box.left) / wide) * (range[1] - range[0]);
    let i = spectrum.wave.findIndex((w) => w >= wave);
    if (i < 0) i = spectrum.wave.length - 1;
    if (i > 0 && wave - spectrum.wave[i - 1] < spectrum.wave[i] - wave) i--;
    const px = x(spectrum.wave[i]);
    pen.strokeStyle = colour("soft");
    pen.setLineDash([3, 3]);
    pen.beginPath(); pen.moveTo(px, box.top); pen.lineTo(px, height - box.bottom); pen.stroke();
    pen.setLineDash([]);
    const good = spectrum.sigma[i] > 0, text = ["rest " + (spectrum.wave[i] / (1 + spectrum.z)).toFixed(1) + " Å", "observed " + spectrum.wave[i].toFixed(1) + " Å"];
    if (good) text.push("flux " + significant(spectrum.flux[i]) + " ± " + significant(spectrum.sigma[i]), "smoothed " + significant(soft.flux[i]));
    else text.push("no data");
    if (spectrum.recon) text.push("model " + significant(spectrum.recon[i]));
    if (sigma && good) text.push("residual " + sigma[i].toFixed(1) + "σ");
    byId("readout").textContent = text.join("    ");
    if (good && y(soft.flux[i]) > box.top && y(soft.flux[i]) < box.top + upper) {
      pen.fillStyle = colour("flux");
      pen.beginPath(); pen.arc(px, y(soft.flux[i]), 3.5, 0, 7); pen.fill();
    }
  }
  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }
  function setView(low, high) {
    const whole = extent(state.spectrum), least = (whole[1] - whole[0]) / 400;
    if (high - low < least) { const middle = (low + high) / 2; low = middle - least / 2; high = middle + least / 2; }
    if (high - low >= whole[1] - whole[0]) state.view = null;
    else if (low < whole[0]) state.view = [whole[0], whole[0] + high - low];
    else if (high > whole[1]) state.view = [whole[1] - high + low, whole[1]];
    else state.view = [low, high];
    later();
  }
  function zoom(factor, at) {
    if (!state.spectrum) return;
    const [low, high] = state.view || extent(state.spectrum), centre = at === undefined ? (low + high) / 2 : at;
    setView(centre - (centre - low) * factor, centre + (high - centre) * factor);
  }
  function pan(share) {
    if (!state.spectrum) return;
    const [low, high] = state.view || extent(state.spectrum), move = share * (high - low);
    setView(low + move, high + move);
  }
  const waveAt = (px) => state.scene.range[0] + ((px - box.left) / state.scene.wide) * (state.scene.range[1] - state.scene.range[0]);
  canvas.addEventListener("wheel", (event) => { if (state.spectrum) { event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : 0.8, waveAt(event.offsetX)); } }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (!state.spectrum) return;
    canvas.setPointerCapture(event.pointerId);
    state.drag = { x: event.offsetX, now: event.offsetX, moved: false, pan: event.shiftKey, view: state.scene.range };
  });
  canvas.addEventListener("pointermove", (event) => {
    state.hover = event.offsetX >= box.left && event.offsetX <= canvas.clientWidth - box.right ? event.offsetX : null;
    if (state.drag) {
      state.drag.now = event.offsetX;
      state.drag.moved ||= Math.abs(event.offsetX - state.drag.x) > 4;
      if (state.drag.pan) { const move = ((state.drag.x - event.offsetX) / state.scene.wide) * (state.drag.view[1] - state.drag.view[0]); setView(state.drag.view[0] + move, state.drag.view[1] + move); }
    }
    later();
  });
  canvas.addEventListener("pointerup", () => {
    const drag = state.drag;
    state.drag = null;
    if (drag && drag.moved && !drag.pan) setView(waveAt(Math.min(drag.x, drag.now)), waveAt(Math.max(drag.x, drag.now)));
    later();
  });
  canvas.addEventListener("pointerleave", () => { state.hover = null; later(); });
  canvas.addEventListener("dblclick", () => { state.view = null; later(); });

  // ---------------------------------------------------------------- controls
  const toggles = { "show-raw": "raw", "show-smooth": "smooth", "show-error": "error", "show-model": "model", "show-residual": "residual", "show-lines": "lines", observed: "observed" };
  function toggle(id) {
    const name = toggles[id];
    state[name] = !state[name];
    byId(id).setAttribute("aria-pressed", String(state[name]));
    later();
  }
  for (const id of Object.keys(toggles)) byId(id).addEventListener("click", () => toggle(id));
  const slider = byId("width");
  function setWidth(width) {
    state.width = width;
    slider.value = width;
    byId("width-value").textContent = width + " px";
    later();
  }
  slider.max = Math.max(61, data.smooth_px);
  slider.addEventListener("input", () => setWidth(Number(slider.value)));
  byId("zoom-in").addEventListener("click", () => zoom(0.6));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
  function region() {
    const rest = value(records[state.index], "worst_wave_rest"), spectrum = state.spectrum;
    if (!spectrum || typeof rest !== "number") return;
    const line = lines.find(({ low, high }) => low <= rest && rest <= high), least = 0.035 * rest;
    const room = line ? 0.6 * (line.high - line.low) : 0, low = line ? Math.min(line.low - room, rest - least) : rest - 2 * least, high = line ? Math.max(line.high + room, rest + least) : rest + 2 * least;
    const whole = extent(spectrum), shift = 1 + spectrum.z;
    if (Math.max(low * shift, whole[0]) < Math.min(high * shift, whole[1])) setView(Math.max(low * shift, whole[0]), Math.min(high * shift, whole[1]));
  }
  byId("region").addEventListener("click", region);
  byId("reset").addEventListener("click", () => { state.view = null; later(); });
  byId("previous").addEventListener("click", () => choose(state.at - 1, true));
  byId("next").addEventListener("click", () => choose(state.at + 1, true));
  byId("filter").addEventListener("input", arrange);
  byId("help").addEventListener("click", () => byId("keys").showModal());
  function paint(theme) {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
    for (const key of document.querySelectorAll(".key")) key.style.background = colour(key.dataset.key);
    drawRows();
    later();
  }
  byId("theme").addEventListener("click", () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  // ---------------------------------------------------------------- labels: kept in this page until they are saved
  const given = new Map();
  for (const [i, label] of data.labels.entries()) {
    const button = make("button", label);
    button.type = "button";
    button.title = "key " + (i + 1);
    button.addEventListener("click", () => mark(label));
    byId("marks").append(button);
  }
  const labelOf = (record) => given.get(value(record, "targetid")) ?? value(record, "label");
  function mark(label) {
    if (state.index < 0) return;
    const record = records[state.index], wanted = label === labelOf(record) ? "" : label;
    given.set(value(record, "targetid"), wanted);
    if (place.has("label")) record[place.get("label")] = wanted || null;
    byId("export").hidden = false;
    byId("export").textContent = "Save " + given.size + (given.size === 1 ? " label" : " labels");
    drawRows();
    showMarks();
    facts(record);
  }
  function showMarks() {
    const now = state.index < 0 ? null : labelOf(records[state.index]);
    for (const button of byId("marks").children) button.setAttribute("aria-pressed", String(button.textContent === now));
  }
  function exported() {
    const when = new Date().toISOString().slice(0, 19) + "+00:00";
    const ascii = (text) => JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
    return [...given].map(([targetid, label]) => `{"targetid": ${ascii(targetid)}, "label": ${ascii(label)}, "comment": "", "who": "gallery", "when": "${when}", "model": ${ascii(data.model)}}\n`).join("");
  }
  byId("export").addEventListener("click", () => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([exported()], { type: "application/jsonl" }));
    link.download = "labels.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  const keys = { j: () => choose(state.at + 1, true), ArrowRight: () => choose(state.at + 1, true), k: () => choose(state.at - 1, true), ArrowLeft: () => choose(state.at - 1, true),
                 r: () => { state.view = null; later(); }, f: () => toggle("show-raw"), s: () => toggle("show-smooth"), e: () => toggle("show-error"),
                 m: () => toggle("show-model"), l: () => toggle("show-lines"), "+": () => zoom(0.6), "-": () => zoom(1 / 0.6), "?": () => byId("keys").showModal(),
                 "/": () => byId("filter").focus(), d: () => toggle("show-residual"), o: () => toggle("observed"), z: region,
                 ",": () => pan(-0.25), ".": () => pan(0.25), "[": () => setWidth(Math.max(1, state.width - 2)), "]": () => setWidth(Math.min(Number(slider.max), state.width + 2)),
                 0: () => { const now = state.index < 0 ? null : labelOf(records[state.index]); if (now) mark(now); } };
  data.labels.forEach((label, i) => { keys[i + 1] = () => mark(label); });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || byId("keys").open || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("resize", later);

  byId("about").textContent = data.about;
  byId("names").textContent = columns.map((column) => column.name).join(", ");
  slider.min = 1;
  setWidth(data.smooth_px);
  drawHead();
  paint(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const wanted = records.findIndex((record) => value(record, "targetid") === location.hash.slice(1));
  if (wanted >= 0) state.at = wanted;
  arrange();
  document.documentElement.dataset.ready = "true";
  window.addEventListener("resize", drawRows);
})();
