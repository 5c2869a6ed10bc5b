"use strict";
// The pages of neurons. Data arrive by LN.index (once) and LN.layer (a script per layer, on demand).
const LN = (() => {
  const ROW = 32, SPARE = 8, WHOLE = 65535;
  const $ = id => document.getElementById(id);
  const layers = new Map(), waiting = new Map();
  const state = { selection: 0, scope: "selected", languages: null, layers: null, query: "", sort: "place", down: false, neuron: null, tab: null };
  let data, list = [], member = new Map(), timer;

  // Small tools ---------------------------------------------------------------------------------

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "onclick") node.addEventListener("click", value);
      else if (key === "style") node.style.cssText = value;
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter(one => one !== null && one !== undefined));
    return node;
  }
  function svg(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  function bytes(text) {
    const raw = atob(text), found = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
    return found;
  }
  const words = text => new Uint16Array(bytes(text).buffer);
  const percent = share => (share >= 0.0995 ? Math.round(100 * share) : (100 * share).toFixed(1)) + " %";
  const number = value => value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: 3 }).replace("-", "−");
  const signed = value => (value >= 0.0005 ? "+" : "") + value.toFixed(3).replace("-0.000", "0.000").replace("-", "−");
  const name = place => `${Math.floor(place / data.width)}.${place % data.width}`;
  const family = language => `var(--c${data.families.indexOf(language.family) % 7})`;
  const plural = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;

  // Data ----------------------------------------------------------------------------------------

  function index(given) {
    data = given;
    data.entropy = words(given.entropy);
    data.top = words(given.top);
    data.best = bytes(given.best);
    data.families = [...new Set(given.languages.map(one => one.family))];
    data.rank = new Map(given.shown.map((place, rank) => [place, rank]));
    data.lower = given.words.map(one => one.toLowerCase());
    data.cost = new Map(given.costs.place.map((place, k) => [place, [given.costs.change[k], given.costs.lang[k]]]));
    document.title = `Neurons of ${data.model}`;
    $("title").textContent = `Neurons of ${data.model}`;
    $("about").textContent = `${data.title} · ${plural(data.layers * data.width, "neuron")} in ${data.layers} layers · ${plural(data.languages.length, "language")} · activation ${data.site}`;
    data.selections.forEach((one, k) => $("selection").append(el("option", { value: k }, `${one.label} (${new Set(one.neurons.flat()).size.toLocaleString("en")})`)));
    heads();
    read();
    listen();
    refresh(true);
    if (state.neuron !== null && matchMedia("(max-width: 59.99rem)").matches) $("detail").scrollIntoView();
  }
  function layer(at, content) {
    content.probability = words(content.probability);
    layers.set(at, content);
    for (const done of waiting.get(at) || []) done(content);
    waiting.delete(at);
  }
  function load(at, done) {
    if (layers.has(at)) return done(layers.get(at));
    if (waiting.has(at)) return waiting.get(at).push(done);
    waiting.set(at, [done]);
    const script = el("script", { src: `data/layer-${String(at).padStart(3, "0")}.js` });
    script.addEventListener("error", () => { $("detail").replaceChildren(el("p", { class: "none" }, `The file ${script.getAttribute("src")} beside this page is missing. Copy the whole folder.`)); });
    document.head.append(script);
  }

  // State and address ---------------------------------------------------------------------------

  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const place = given.get("neuron"), chosen = data.selections.findIndex(one => one.name === given.get("selection"));
    state.selection = Math.max(chosen, 0);
    state.scope = given.get("show") || "selected";
    const codes = (given.get("languages") || "").split(",").map(code => data.languages.findIndex(one => one.code === code)).filter(k => k >= 0);
    state.languages = codes.length ? codes : null;
    const span = (given.get("layers") || "").split("-").map(Number);
    state.layers = given.get("layers") ? [span[0], span[span.length - 1]] : null;
    state.query = given.get("q") || "";
    state.sort = given.get("sort") || "place";
    state.down = given.get("order") === "down";
    state.neuron = place && /^\d+\.\d+$/.test(place) ? Number(place.split(".")[0]) * data.width + Number(place.split(".")[1]) : null;
    if (state.neuron !== null && state.neuron >= data.layers * data.width) state.neuron = null;
    state.tab = given.get("text");
    $("selection").value = state.selection;
    $("scope").value = state.scope;
    $("query").value = state.query;
  }
  function write() {
    const kept = new URLSearchParams();
    if (state.selection) kept.set("selection", data.selections[state.selection].name);
    if (state.scope !== "selected") kept.set("show", state.scope);
    if (state.languages) kept.set("languages", state.languages.map(k => data.languages[k].code).join(","));
    if (state.layers) kept.set("layers", state.layers.join("-"));
    if (state.query) kept.set("q", state.query);
    if (state.sort !== "place") kept.set("sort", state.sort);
    if (state.down) kept.set("order", "down");
    if (state.neuron !== null) kept.set("neuron", name(state.neuron));
    if (state.tab) kept.set("text", state.tab);
    history.replaceState(null, "", "#" + kept);
  }
  function refresh(scroll) {
    write();
    members();
    map();
    filter();
    rows(scroll);
    detail();
  }
  function listen() {
    $("selection").addEventListener("change", () => { state.selection = Number($("selection").value); refresh(true); });
    $("scope").addEventListener("change", () => { state.scope = $("scope").value; refresh(true); });
    $("clear").addEventListener("click", () => { state.languages = state.layers = null; state.query = $("query").value = ""; refresh(true); });
    $("query").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => { state.query = $("query").value.trim(); refresh(true); }, 60); });
    $("rows").addEventListener("scroll", () => rows(false), { passive: true });
    $("rows").addEventListener("keydown", keys);
    window.addEventListener("hashchange", () => { read(); refresh(true); });
    window.addEventListener("resize", () => rows(false));
    document.addEventListener("keydown", event => {
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); $("query").focus(); }
    });
    drag();
  }

  // Map -----------------------------------------------------------------------------------------

  function members() {
    member = new Map();
    data.selections[state.selection].neurons.forEach((own, k) => {
      for (const place of own) { const known = member.get(place); known ? known.push(k) : member.set(place, [k]); }
    });
  }
  function map() {
    const chosen = data.selections[state.selection], grid = $("map"), langs = data.languages;
    const counts = new Array(data.layers).fill(0);
    for (const place of member.keys()) counts[Math.floor(place / data.width)]++;
    const most = Math.max(1, ...counts);
    grid.style.gridTemplateColumns = `2rem repeat(${langs.length}, minmax(0, 1fr)) minmax(2.4rem, .8fr)`;
    grid.style.setProperty("--height", `${Math.max(6, Math.min(15, Math.floor(300 / data.layers)))}px`);
    const tall = langs.map(() => new Array(data.layers).fill("")), small = langs.map(() => new Array(data.layers).fill(""));
    const size = langs.map(() => new Array(data.layers).fill(0));
    chosen.neurons.forEach((own, k) => {
      for (const place of own) {
        const at = Math.floor(place / data.width), x = (100 * (place % data.width) / data.width).toFixed(1);
        size[k][at]++;
        if (member.get(place).length === 1) tall[k][at] += `M${x} 0V10`; else small[k][at] += `M${x} 6V10`;
      }
    });
    const parts = [el("span")];
    langs.forEach((one, k) => parts.push(el("button", { type: "button", class: "column", style: `--family:${family(one)}`, title: `${one.name}, ${one.family}: ${plural(chosen.neurons[k].length, "neuron")}`, "aria-pressed": String(!!state.languages && state.languages.includes(k) && !state.layers), onclick: () => language(k) }, one.code)));
    parts.push(el("span", { class: "column", style: "--family:transparent", title: "neurons of the layer" }, "all"));
    for (let at = 0; at < data.layers; at++) {
      parts.push(el("span", { class: "row" }, data.layers <= 40 || at % 5 === 0 ? String(at) : ""));
      langs.forEach((one, k) => {
        const inside = (!state.languages || state.languages.includes(k)) && (!state.layers || (at >= state.layers[0] && at <= state.layers[1])) && (state.languages || state.layers);
        const cell = el("button", { type: "button", class: "cell", style: `--family:${family(one)}`, "data-layer": at, "data-language": k, "aria-pressed": String(!!inside), tabindex: at || k ? -1 : 0, "aria-label": `layer ${at}, ${one.name}: ${plural(size[k][at], "neuron")}`, title: `layer ${at}, ${one.name}: ${plural(size[k][at], "neuron")}` });
        if (size[k][at]) cell.append(svg("svg", { viewBox: "-1 0 102 10", preserveAspectRatio: "none" }, svg("path", { d: tall[k][at] + small[k][at] })));
        parts.push(cell);
      });
      parts.push(el("span", { class: "side", style: `width:${100 * counts[at] / most}%`, title: `layer ${at}: ${plural(counts[at], "neuron")}` }));
    }
    parts.push(el("span"));
    langs.forEach((one, k) => parts.push(el("span", { class: "total" }, chosen.neurons[k].length.toLocaleString("en"))));
    parts.push(el("span", { class: "total" }, member.size.toLocaleString("en")));
    const focus = document.activeElement && document.activeElement.dataset ? { ...document.activeElement.dataset } : {};
    grid.replaceChildren(...parts);
    if (focus.layer !== undefined) { const again = cellAt(focus.layer, focus.language); if (again) again.focus(); }
  }
  const cellAt = (at, k) => $("map").querySelector(`.cell[data-layer="${at}"][data-language="${k}"]`);
  function language(k) {
    const alone = state.languages && state.languages.length === 1 && state.languages[0] === k && !state.layers;
    state.languages = alone ? null : [k];
    state.layers = null;
    state.neuron = null;
    refresh(true);
  }
  function drag() {
    let from = null;
    const spot = target => target && target.classList && target.classList.contains("cell") ? [Number(target.dataset.layer), Number(target.dataset.language)] : null;
    const choose = to => {
      const rows = [from[0], to[0]].sort((a, b) => a - b), columns = [from[1], to[1]].sort((a, b) => a - b);
      state.layers = rows;
      state.languages = data.languages.map((_, k) => k).filter(k => k >= columns[0] && k <= columns[1]);
    };
    $("map").addEventListener("pointerdown", event => { from = spot(event.target); if (from && event.pointerType === "mouse") event.preventDefault(); });
    window.addEventListener("pointerup", event => {
      if (!from) return;
      const to = spot(document.elementFromPoint(event.clientX, event.clientY)) || from;
      const same = state.layers && state.languages && state.languages.length === 1 && state.layers[0] === state.layers[1] && state.layers[0] === to[0] && state.languages[0] === to[1] && from[0] === to[0] && from[1] === to[1];
      if (same) state.layers = state.languages = null; else choose(to);
      from = null;
      refresh(true);
    });
    $("map").addEventListener("keydown", event => {
      const at = spot(event.target), step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!at) return;
      if (step) { const next = cellAt(at[0] + step[0], at[1] + step[1]); if (next) { event.preventDefault(); next.tabIndex = 0; event.target.tabIndex = -1; next.focus(); } }
      else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); from = at; choose(at); from = null; refresh(true); }
    });
  }

  // List ----------------------------------------------------------------------------------------

  const COLUMNS = [
    ["place", "Neuron", ""], ["languages", "Languages", ""], ["entropy", "Entropy", "number"],
    ["top", "Fires in", "number wide"], ["cost", "Cost", "number wide"], ["token", "Strongest at", ""],
  ];
  const HELP = {
    entropy: "Entropy of the activation probabilities over languages: 0 fires in one language, 1 in all alike",
    top: "Activation probability in the language where it is largest",
    cost: "Largest change of NLL (nats per token) when this neuron alone is set to zero",
    token: "The token at which the neuron is strongest",
  };
  function heads() {
    $("heads").replaceChildren(...COLUMNS.map(([key, label, kind]) => el("button", { type: "button", class: kind, title: HELP[key], "data-key": key, onclick: () => { state.down = state.sort === key ? !state.down : key === "top" || key === "cost"; state.sort = key; refresh(true); } }, label)));
  }
  function term(text) {
    const low = text.toLowerCase();
    let match = /^l?(\d+)[./:](\d+)$/.exec(low);
    if (match) { const place = Number(match[1]) * data.width + Number(match[2]); return one => one === place; }
    match = /^l(\d+)$/.exec(low);
    if (match) { const at = Number(match[1]); return one => Math.floor(one / data.width) === at; }
    if (low === "exclusive") return one => member.has(one) && member.get(one).length === 1;
    if (low === "shared") return one => member.has(one) && member.get(one).length > 1;
    const k = data.languages.findIndex(one => one.code.toLowerCase() === low || one.name.toLowerCase() === low);
    if (k >= 0) return one => member.has(one) ? member.get(one).includes(k) : data.best[one] === k;
    if (/^\d+$/.test(low)) { const at = Number(low); return one => one % data.width === at || tokens(one).includes(low); }
    return one => tokens(one).includes(low);
  }
  const tokens = place => data.rank.has(place) ? data.lower[data.rank.get(place)] : "";
  function filter() {
    const start = performance.now(), tests = state.query.split(/\s+/).filter(Boolean).map(term), kept = [];
    const one = state.scope === "exclusive", many = state.scope === "shared", langs = state.languages;
    const test = place => {
      const own = member.get(place);
      if (state.layers) { const at = Math.floor(place / data.width); if (at < state.layers[0] || at > state.layers[1]) return; }
      if (langs && !(own ? own.some(k => langs.includes(k)) : state.scope === "all" && langs.includes(data.best[place]))) return;
      if ((one && own.length !== 1) || (many && own.length < 2)) return;
      for (const check of tests) if (!check(place)) return;
      kept.push(place);
    };
    if (state.scope === "all") for (let place = 0; place < data.layers * data.width; place++) test(place);
    else if (state.scope === "zeroed") data.costs.place.forEach(test);
    else for (const place of member.keys()) test(place);
    list = sorted(kept);
    list.milliseconds = performance.now() - start;
    const what = state.scope === "all" ? "the model" : data.selections[state.selection].label;
    $("found").textContent = `${plural(list.length, "neuron")} of ${what}` + (langs ? `, ${langs.map(k => data.languages[k].name).join(", ")}` : "") + (state.layers ? `, layer${state.layers[0] === state.layers[1] ? ` ${state.layers[0]}` : `s ${state.layers[0]} to ${state.layers[1]}`}` : "");
    $("clear").hidden = !(state.languages || state.layers || state.query);
    for (const head of $("heads").children) {
      if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
    }
  }
  function sorted(places) {
    const value = {
      place: one => one, entropy: one => data.entropy[one], top: one => data.top[one],
      cost: one => data.cost.has(one) ? data.cost.get(one)[0] : null,
      languages: one => member.has(one) ? member.get(one).join(".") : "~" + data.best[one],
      token: one => data.rank.has(one) ? data.words[data.rank.get(one)] : "",
    }[state.sort] || (one => one);
    const keyed = places.map(place => [value(place), place]), way = state.down ? -1 : 1;
    keyed.sort((a, b) => {
      if (a[0] === null || b[0] === null) return a[0] === b[0] ? a[1] - b[1] : a[0] === null ? 1 : -1;
      return a[0] < b[0] ? -way : a[0] > b[0] ? way : a[1] - b[1];
    });
    return keyed.map(pair => pair[1]);
  }
  function rows(scroll) {
    const box = $("rows"), at = list.indexOf(state.neuron);
    $("space").style.height = `${list.length * ROW}px`;
    if (scroll) box.scrollTop = at > 3 ? (at - 3) * ROW : 0;
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - SPARE), last = Math.min(list.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + SPARE);
    for (const old of box.querySelectorAll(".line")) old.remove();
    const made = [];
    for (let k = first; k < last; k++) made.push(line(list[k], k));
    box.append(...made);
    box.setAttribute("aria-activedescendant", at >= first && at < last ? `line-${state.neuron}` : "");
  }
  const chip = (k, faint) => el("span", { class: faint ? "chip faint" : "chip", style: `--family:${family(data.languages[k])}`, title: data.languages[k].name }, data.languages[k].code);
  function line(place, k) {
    const own = member.get(place), cost = data.cost.get(place);
    const strongest = data.rank.has(place) ? data.words[data.rank.get(place)].split("\t")[0] : "";
    return el("div", { class: "line", id: `line-${place}`, role: "option", "aria-selected": String(place === state.neuron), "aria-posinset": k + 1, "aria-setsize": list.length, style: `top:${k * ROW}px`, onclick: () => open(place) },
      el("span", { class: "place" }, name(place)),
      el("span", {}, ...(own ? own.map(one => chip(one)) : [chip(data.best[place], true)])),
      el("span", { class: "number" }, (data.entropy[place] / WHOLE).toFixed(2)),
      el("span", { class: "number wide" }, percent(data.top[place] / WHOLE)),
      el("span", { class: "number wide" }, cost ? signed(cost[0]) : ""),
      el("bdi", { class: "token" }, strongest));
  }
  function keys(event) {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined || !list.length) return;
    event.preventDefault();
    const at = Math.max(0, Math.min(list.length - 1, list.indexOf(state.neuron) + move));
    open(list[at], true);
    const box = $("rows");
    if (at * ROW < box.scrollTop || (at + 1) * ROW > box.scrollTop + box.clientHeight) { box.scrollTop = at * ROW - box.clientHeight / 2; rows(false); }
  }
  function open(place, quiet) {
    state.neuron = place;
    write();
    rows(false);
    detail();
    if (!quiet && matchMedia("(max-width: 59.99rem)").matches) $("detail").scrollIntoView();
  }

  // Detail --------------------------------------------------------------------------------------

  function detail() {
    const place = state.neuron;
    if (place === null) return overview();
    load(Math.floor(place / data.width), content => { if (state.neuron === place) neuron(place, content); });
  }
  const section = (title, ...parts) => { const kept = parts.flat().filter(Boolean); return kept.length ? [el("h3", {}, title), ...kept] : []; };
  function neuron(place, content) {
    const own = owners(place), found = content.neurons[place], at = Math.floor(place / data.width), index = place % data.width;
    const order = data.languages.map((_, k) => k).sort((a, b) => own.includes(b) - own.includes(a) || a - b);
    const share = k => content.probability[index * data.languages.length + k] / WHOLE;
    const box = $("detail");
    box.replaceChildren(
      el("div", { class: "head" },
        el("div", {}, el("h2", {}, `Layer ${at}, neuron ${index}`), el("p", { class: "lead" }, summary(place, own, share))),
        el("div", {}, el("button", { type: "button", class: "plain", "aria-label": "Previous neuron in the list", onclick: () => step(-1) }, "←"), el("button", { type: "button", class: "plain", "aria-label": "Next neuron in the list", onclick: () => step(1) }, "→"))),
      ...section("How often it fires", bars(order.map(k => ({ k, own: own.includes(k), value: share(k), text: percent(share(k)) })), 0, 1)),
      ...(found ? shown(place, found, own, order) : [el("p", { class: "note" }, `Contexts, tokens and costs are kept of the ${plural(data.shown.length, "neuron")} that a selection holds; this one is in none.`)]),
      ...section("In selections", selections(place)),
      ...section("Take it along", copies(place, own)));
    if (!matchMedia("(max-width: 59.99rem)").matches) box.scrollTop = 0;
  }
  function owners(place) {
    const found = new Set();
    for (const one of data.selections) if (!one.random) one.neurons.forEach((places, k) => { if (places.includes(place)) found.add(k); });
    return [...found].sort((a, b) => a - b);
  }
  function summary(place, own, share) {
    const names = own.map(k => data.languages[k].name), best = data.best[place];
    const whose = names.length ? `Selected for ${names.join(", ")}.` : "In no selection.";
    return `${whose} Fires at ${percent(share(best))} of tokens in ${data.languages[best].name}; entropy over languages ${(data.entropy[place] / WHOLE).toFixed(2)} of 1.`;
  }
  function step(move) {
    const at = list.indexOf(state.neuron) + move;
    if (at >= 0 && at < list.length) { open(list[at], true); rows(true); }
  }
  function bars(items, low, high) {
    const place = value => 100 * (value - low) / (high - low || 1), box = el("div", { class: "bars" });
    for (const one of items) {
      const track = el("span", { class: "track" });
      if (low < 0) track.append(el("u", { style: `left:${place(0)}%` }));
      if (one.span) track.append(el("b", { style: `left:${place(one.span[0])}%;width:${place(one.span[1]) - place(one.span[0])}%` }));
      track.append(el("i", { class: one.own ? "own" : "", style: `left:${place(one.value)}%` }));
      box.append(el("span", { class: one.own ? "own" : "" }, data.languages[one.k].name), track, el("span", { class: one.own ? "own" : "" }, one.text));
    }
    return box;
  }
  function shown(place, found, own, order) {
    return [
      ...section("Distribution of its activation", found.histogram ? [histogram(found.histogram, own), el("p", { class: "note" }, `Activation ${found.histogram.site}, tokens of each language; heights are square roots of shares. The neuron is active right of 0. ${own.length ? "Grey: the other languages." : ""}`)] : null),
      ...section("Where it is strongest", contexts(found, order, own)),
      ...section("What it writes", writes(found, own)),
      ...section("What it costs", costs(found)),
      ...section("Neurons of a similar profile over languages", found.near.length ? el("div", { class: "near" }, ...found.near.map(([other, value]) => el("button", { type: "button", title: `correlation ${value}`, onclick: () => open(other, true) }, name(other) + " ", ...owners(other).map(k => chip(k))))) : null),
    ];
  }
  function histogram(one, own) {
    const width = 560, height = 150, foot = 20, n = 48, x = value => 6 + (width - 12) * (value - one.low) / (one.high - one.low || 1);
    const picture = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Distribution of the activation by language, from ${one.low} to ${one.high}` });
    const path = k => bytes(one.bars[k]).reduce((d, value, i) => { const y = (height - foot - value / 255 * (height - foot - 14)).toFixed(1), a = 6 + (width - 12) * i / n, b = 6 + (width - 12) * (i + 1) / n; return d + `${i ? "L" : "M"}${a.toFixed(1)} ${y}L${b.toFixed(1)} ${y}`; }, "");
    picture.append(svg("path", { class: "axis", d: `M6 ${height - foot}H${width - 6}` }));
    if (one.low < 0 && one.high > 0) picture.append(svg("path", { class: "axis", "stroke-dasharray": "3 3", d: `M${x(0)} 4V${height - foot}` }));
    data.languages.forEach((language, k) => { if (!own.includes(k)) picture.append(svg("path", { class: "other", d: path(k) }, svg("title", {}, language.name))); });
    own.slice(0, 7).forEach((k, i) => {
      picture.append(svg("path", { class: "mine", stroke: `var(--c${i % 7})`, d: path(k) }, svg("title", {}, data.languages[k].name)));
      const label = svg("text", { x: width - 8, y: 14 + 14 * i, "text-anchor": "end", style: `fill:var(--c${i % 7});font-weight:600` }, data.languages[k].name);
      picture.append(label);
    });
    for (const value of [one.low, 0, one.high]) {
      if (value === 0 && !(one.low < 0 && one.high > 0)) continue;
      picture.append(svg("text", { x: x(value), y: height - 5, "text-anchor": value === one.low ? "start" : value === one.high ? "end" : "middle" }, number(Number(value.toPrecision(3)))));
    }
    return picture;
  }
  function contexts(found, order, own) {
    const known = order.filter(k => found.contexts[data.languages[k].code]);
    if (!known.length) return el("p", { class: "note" }, "It is above 0 at no token that was read.");
    const wanted = known.find(k => data.languages[k].code === state.tab) ?? known[0], box = el("div"), tabs = el("div", { class: "tabs", role: "tablist" });
    const show = k => {
      const one = data.languages[k];
      for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.dataset.code === one.code));
      box.replaceChildren(...found.contexts[one.code].map(([value, peak, pieces, strengths]) => el("div", { class: "context" },
        el("span", { class: "value" }, number(value)),
        el("p", { lang: one.tag, dir: one.direction }, ...pieces.map((piece, i) => i ? piece : piece.trimStart()).map((piece, i) => strengths[i] === "0" && i !== peak ? piece : el("span", { class: i === peak ? "peak" : null, style: `--s:${strengths[i]}` }, piece))))));
    };
    for (const k of known) tabs.append(el("button", { type: "button", role: "tab", "data-code": data.languages[k].code, title: data.languages[k].name, onclick: () => { state.tab = data.languages[k].code; write(); show(k); } }, data.languages[k].name));
    show(wanted);
    const most = Math.max(...data.languages.map(one => one.tokens)), read = data.read.tokens;
    const part = read && read < most ? `the first ${read.toLocaleString("en")} tokens` : "all tokens";
    return [tabs, box, el("p", { class: "note" }, `The ${data.read.contexts} documents with its largest activations, of ${part} of each language; ${data.read.words} words on either side.`)];
  }
  function writes(found, own) {
    const listed = (label, tokens) => tokens ? [el("dt", {}, label), el("dd", {}, el("div", { class: "tokens" }, ...tokens.map(([token, z]) => el("span", { title: `${signed(z)} standard deviations` }, el("bdi", {}, visible(token))))))] : [];
    const each = own.map(k => data.languages[k]).filter(one => found.written[one.code]);
    const parts = [...listed("raises", found.written.raised), ...listed("lowers", found.written.lowered), ...each.flatMap(one => listed(one.name, found.written[one.code]))];
    return parts.length ? [el("dl", { class: "writes" }, ...parts), el("p", { class: "note" }, "Its column of the down projection through norms and head; hover for standard deviations over the vocabulary. By language: tokens that occur in it far more than in the others.")] : null;
  }
  const visible = token => token.replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
  function costs(found) {
    if (!found.costs) return el("p", { class: "note" }, `Not zeroed by itself; ${plural(data.costs.place.length, "neuron")} were (show: zeroed one by one).`);
    const cells = data.languages.map((one, k) => [k, found.costs[one.code]]).filter(([, cell]) => cell);
    const spans = cells.flatMap(([, cell]) => [cell[0], cell[1] ?? cell[0], cell[2] ?? cell[0]]);
    const low = Math.min(0, ...spans), high = Math.max(0, ...spans);
    return [bars(cells.map(([k, cell]) => ({ k, own: cell[3] !== null && cell[3] < 0.05, value: cell[0], span: cell[1] === null ? null : [cell[1], cell[2]], text: signed(cell[0]) })), low - 1e-9, high), el("p", { class: "note" }, "Change of NLL in nats per token with this neuron alone set to zero, and its interval over documents. Coloured: p below 0.05 after Holm over all neurons and languages.")];
  }
  function selections(place) {
    const found = [];
    for (const one of data.selections) one.neurons.forEach((places, k) => {
      const at = places.indexOf(place);
      if (at < 0) return;
      const score = one.scores ? one.scores[k][at] : null;
      const rank = one.scores ? one.scores[k].filter(other => other < score).length + 1 : null;
      found.push(el("tr", {}, el("td", {}, one.label), el("td", {}, data.languages[k].name), el("td", {}, score === null ? "–" : number(score)), el("td", {}, rank === null ? "–" : `${rank} of ${places.length}`)));
    });
    if (!found.length) return null;
    return el("table", { class: "table" }, el("thead", {}, el("tr", {}, ...["Selection", "Language", "Score", "Place from the lowest score"].map(text => el("th", { scope: "col" }, text)))), el("tbody", {}, ...found));
  }
  function copies(place, own) {
    const lang = data.languages[own.length ? own[0] : data.best[place]].code, at = Math.floor(place / data.width), index = place % data.width;
    const code = `import langneurons as ln\nimport pandas as pd\n\nframe = pd.DataFrame({"lang": ["${lang}"], "layer": [${at}], "neuron": [${index}], "score": [0.0]})\nneurons = ln.Neurons(frame, {"languages": ["${lang}"], "n_layers": ${data.layers}, "d_mlp": ${data.width}})\nplan = ln.plan(neurons, "${lang}", "set", 0)\n`;
    const json = JSON.stringify({ ...data.source, layer: at, neuron: index, languages: own.map(k => data.languages[k].code) });
    const button = (label, text) => { const made = el("button", { type: "button", class: "plain", onclick: () => copy(text, made, label) }, label); return made; };
    const parts = [button("Copy as code", code), " ", button("Copy as JSON", json), " ", button("Copy link", location.href)];
    if (data.link) parts.push(" ", el("a", { href: data.link.replace("{layer}", at).replace("{neuron}", index), rel: "noopener" }, "This neuron elsewhere"));
    return el("p", {}, ...parts);
  }
  function copy(text, button, label) {
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = label; }, 1200); };
    const old = () => { const area = el("textarea", { style: "position:fixed;opacity:0" }); area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove(); done(); };
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, old); else old();
  }

  // Languages -----------------------------------------------------------------------------------

  function overview() {
    const chosen = data.selections[state.selection], box = $("detail");
    if (state.languages && state.languages.length === 1) return box.replaceChildren(...one(state.languages[0], chosen));
    const alone = k => chosen.neurons[k].filter(place => member.get(place).length === 1).length;
    box.replaceChildren(
      el("h2", {}, chosen.label),
      el("p", { class: "lead" }, `${plural(member.size, "neuron")} of ${(data.layers * data.width).toLocaleString("en")}. Choose a neuron in the list, or a language in the map.`),
      el("h3", {}, "Neurons by language"),
      el("table", { class: "table" },
        el("thead", {}, el("tr", {}, ...["Language", "Neurons", "Of it alone", "Tokens read"].map(text => el("th", { scope: "col" }, text)))),
        el("tbody", {}, ...data.languages.map((language_, k) => el("tr", {}, el("td", {}, el("a", { href: "#", onclick: event => { event.preventDefault(); language(k); } }, language_.name)), el("td", {}, chosen.neurons[k].length.toLocaleString("en")), el("td", {}, chosen.neurons[k].length ? percent(alone(k) / chosen.neurons[k].length) : "–"), el("td", {}, language_.tokens.toLocaleString("en")))))),
      el("p", { class: "note" }, `${data.source.model}, revision ${data.source.revision}, ${data.source.dtype}. Keys: / searches, arrows move in list and map.`));
  }
  function one(k, chosen) {
    const language_ = data.languages[k], own = chosen.neurons[k], shared = data.languages.map(() => 0);
    for (const place of own) for (const other of member.get(place)) if (other !== k) shared[other]++;
    const alone = own.filter(place => member.get(place).length === 1).length, most = Math.max(1, ...shared);
    const common = (language_.common || []).map(([count, text]) => el("div", { class: "context" }, el("span", { class: "value" }, count), el("p", { lang: language_.tag, dir: language_.direction }, text)));
    return [
      el("h2", {}, language_.name),
      el("p", { class: "lead" }, `${plural(own.length, "neuron")} of ${chosen.label}` + (own.length ? `; ${plural(alone, "neuron")} of this language alone.` : ".")),
      ...section("Neurons shared with", own.length ? bars(data.languages.map((_, other) => ({ k: other, own: false, value: shared[other], text: String(shared[other]) })).filter(item => item.k !== k).sort((a, b) => b.value - a.value), 0, most) : null),
      ...section("Contexts in which most of its neurons are strongest", common.length ? [...common, el("p", { class: "note" }, "Left: how many of its neurons have the text among their strongest.")] : null),
    ];
  }
  return { index, layer, state, list: () => list, data: () => data };
})();
