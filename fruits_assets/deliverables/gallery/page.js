"use strict";

/* The page around the map: search, legend, the chosen photo, the variance, the list. */

(() => {
  const { texts, language, series, markers } = JSON.parse(
    document.getElementById("settings").textContent,
  );
  const $ = (id) => document.getElementById(id);
  if (typeof GALLERY === "undefined") {
    $("no-data").hidden = false;
    return;
  }
  $("explorer").hidden = false; // or the map has no size

  const MOST_CLASSES = 24; // that have a colour each: more are grouped
  const ROWS = 25; // of the list at a time
  const photos = new Photos(GALLERY, texts);
  const whole = new Intl.NumberFormat(language);
  const exact = new Intl.NumberFormat(language, {
    minimumSignificantDigits: 3, maximumSignificantDigits: 3,
  });
  const share = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { text: "", group: -1, selected: -1, first: 0, matching: photos.count };

  const say = (text, values) => text.replace(/{(\w+)}/g, (_, name) => values[name]);
  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLocaleLowerCase(language);
  const isolated = (text) => element("bdi", {}, text);

  /* Groups: a colour and a marker each, the largest first. */

  function groupNames() {
    const firstWord = (label) => label.trim().split(/\s+/)[0] || label;
    return photos.labels.map(photos.labels.length > MOST_CLASSES ? firstWord : (label) => label);
  }

  function groupsOf() {
    const names = groupNames();
    const found = new Map();
    for (let i = 0; i < photos.count; i += 1) {
      const label = photos.labelOf[i];
      const name = label === NONE ? null : names[label];
      if (!found.has(name)) found.set(name, []);
      found.get(name).push(i);
    }
    const last = ([name]) => Number(name === null);
    return [...found]
      .sort((a, b) => last(a) - last(b) || b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1))
      .map(([name, members], i) => ({
        name: name === null ? texts.unlabelled : visible(name),
        photos: members,
        series: name === null ? null : series[i % series.length],
        marker: name === null
          ? "o" : markers[(i + Math.floor(i / series.length)) % markers.length],
      }));
  }

  const groups = groupsOf();
  const groupOf = new Uint16Array(photos.count);
  groups.forEach((group, number) => group.photos.forEach((photo) => { groupOf[photo] = number; }));

  /* Colours: those of the figures; on a dark page, as much lighter as it takes to be seen. */

  const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  function luminance(rgb) {
    const [r, g, b] = rgb.map((value) => {
      const c = value / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function lightened(hex, paper) {
    let rgb = channels(hex);
    const needed = 3.8 * (luminance(channels(paper)) + 0.05) - 0.05;
    while (luminance(rgb) < needed) rgb = rgb.map((value) => value + 0.08 * (255 - value) + 1);
    return `rgb(${rgb.map(Math.round).join(" ")})`;
  }

  function recolour() {
    const style = getComputedStyle(document.documentElement);
    const names = ["tile", "ink", "muted", "hairline", "rest", "accent"];
    map.colours = Object.fromEntries(
      names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
    );
    for (const group of groups) {
      if (group.series === null) group.colour = map.colours.rest;
      else group.colour = dark.matches ? lightened(group.series, map.colours.tile) : group.series;
    }
    drawLegend();
    map.repaint();
  }

  /* The map. */

  const axis = (n) => {
    const explained = GALLERY.spectrum[n - 1];
    if (explained === undefined) return say(texts.axis, { n });
    return say(texts.axis_share, { n, share: share.format(explained) });
  };

  const words = (photo) => ({
    label: photos.label(photo), split: photos.split(photo), path: photos.path(photo),
  });

  const map = new PhotoMap($("map"), photos, [axis(1), axis(2)], {
    hovered: showTip,
    moved(photo, x, y) {
      showTip(photo, x, y);
      $("live").textContent = say(texts.here, words(photo));
    },
    chosen: choose,
  });
  map.groups = groups;
  map.groupOf = groupOf;

  function showTip(photo, x, y) {
    const tip = $("tip");
    tip.hidden = photo < 0;
    if (photo < 0) return;
    const { label, split } = words(photo);
    tip.replaceChildren(
      photos.tile(photo, 64),
      element("span", { className: "words" },
        element("b", {}, isolated(label)), element("span", { className: "split" }, split)),
    );
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = Math.max(4, Math.min(x - width / 2, map.width - width - 4));
    const above = y - height - 30;
    tip.style.transform = `translate(${left}px, ${above > 4 ? above : y + 30}px)`;
  }

  for (const button of document.querySelectorAll("[data-map]")) {
    button.addEventListener("click", () => map.command(button.dataset.map));
  }
  $("thumbnails").addEventListener("change", (event) => {
    map.thumbnails = event.target.checked;
    map.repaint();
  });

  /* Search and legend: one of both at a time says which photos are shown. */

  const labels = photos.labels.map((label) => plain(visible(label)).trim());

  function filtered() {
    const wanted = plain(state.text.trim());
    const same = labels.some((label) => label === wanted);
    const matches = labels.map((label) => (same ? label === wanted : label.includes(wanted)));
    state.matching = 0;
    for (let i = 0; i < photos.count; i += 1) {
      const label = photos.labelOf[i];
      const found = !wanted || (label !== NONE && matches[label]);
      map.shown[i] = Number(found && (state.group < 0 || groupOf[i] === state.group));
      state.matching += map.shown[i];
    }
    state.first = 0;
    const counts = { n: whole.format(state.matching), of: whole.format(photos.count) };
    $("matching").textContent = state.matching
      ? say(texts.matching, counts) : say(texts.no_match, { text: visible(state.text) });
    $("clear").disabled = !wanted && state.group < 0;
    for (const [number, button] of [...$("groups").querySelectorAll("button")].entries()) {
      button.setAttribute("aria-pressed", String(number === state.group));
    }
    map.repaint();
    drawRows();
  }

  function showGroup(number) {
    state.group = number;
    state.text = "";
    $("search").value = "";
    filtered();
  }

  $("search").placeholder = photos.labels.length
    ? say(texts.search_hint, { label: visible(photos.labels[0]) }) : "";
  $("labels").replaceChildren(
    ...photos.labels.map((label) => element("option", { value: visible(label) })),
  );
  $("search").addEventListener("input", (event) => {
    state.text = event.target.value;
    state.group = -1;
    filtered();
  });
  $("clear").addEventListener("click", () => showGroup(-1));

  function swatch(group) {
    const names = "http://www.w3.org/2000/svg";
    const picture = document.createElementNS(names, "svg");
    picture.setAttribute("viewBox", "-1.4 -1.4 2.8 2.8");
    picture.setAttribute("aria-hidden", "true");
    const shape = document.createElementNS(names, "path");
    const outline = SHAPES[group.marker];
    shape.setAttribute("d", outline ? `M${outline.map((point) => point.join(" ")).join("L")}Z`
      : "M-1.05 0a1.05 1.05 0 1 0 2.1 0a1.05 1.05 0 1 0 -2.1 0");
    shape.setAttribute("fill", group.colour);
    picture.append(shape);
    return picture;
  }

  function drawLegend() {
    $("legend-text").textContent = photos.labels.length > MOST_CLASSES
      ? texts.legend_groups : texts.legend_classes;
    const buttons = [...$("groups").querySelectorAll("button")];
    if (buttons.length) { // the page has changed its colours: who has the focus keeps it
      buttons.forEach((button, number) => button.firstChild.replaceWith(swatch(groups[number])));
      return;
    }
    $("groups").replaceChildren(...groups.map((group, number) => element("li", {},
      element("button", {
        type: "button",
        "aria-pressed": "false",
        onclick: () => showGroup(state.group === number ? -1 : number),
      }, swatch(group), element("bdi", { className: "name" }, group.name),
      element("span", { className: "count" }, whole.format(group.photos.length))))));
  }

  /* The chosen photo. */

  function choose(photo) {
    state.selected = photo;
    map.select(photo);
    showTip(-1);
    drawRows();
    if (photo < 0) {
      $("photo").replaceChildren(
        element("p", { className: "small" }, texts.nothing_selected));
      $("live").textContent = "";
      return;
    }
    $("photo").replaceChildren(mainPhoto(photo), verdict(photo), ...neighbours(photo));
    $("live").textContent = say(texts.chosen, { ...words(photo), training: taught(photo) });
  }

  function mainPhoto(photo) {
    const { label, split, path } = words(photo);
    const entry = (name, value, className = "") => element("div", {},
      element("dt", {}, name), element("dd", { className }, isolated(value)));
    return element("div", { className: "main" }, photos.tile(photo, 128),
      element("dl", {}, entry(texts.label, label, "label"), entry(texts.split, split),
        entry(texts.path, path)));
  }

  function taught(photo) {
    const training = photos.training(photo);
    if (!training) return texts.training_none;
    if (photos.sameLabel(photo, training.photo)) return texts.training_same;
    return say(texts.training_other, { label: photos.label(training.photo) });
  }

  function verdict(photo) {
    const training = photos.training(photo);
    const said = element("p", { className: "verdict" });
    if (training) {
      said.classList.toggle("same", photos.sameLabel(photo, training.photo));
      said.append(photos.tile(training.photo, 40));
    }
    said.append(element("span", {}, isolated(taught(photo))));
    return said;
  }

  function neighbours(photo) {
    const components = whole.format(GALLERY.components);
    const found = photos.neighbours(photo).map((near) => {
      const same = photos.sameLabel(photo, near.photo);
      return element("li", {}, element("button", {
        type: "button",
        className: same ? "same" : "",
        title: photos.path(near.photo),
        "data-photo": near.photo,
        onclick: () => {
          choose(near.photo);
          $("selected").focus({ preventScroll: true });
        },
      }, photos.tile(near.photo, 64),
      element("bdi", { className: "label" }, photos.label(near.photo)),
      element("span", { className: "same-or-not" },
        same ? `✓ ${texts.same_label}` : `✗ ${texts.other_label}`),
      element("span", { className: "distance" },
        say(texts.distance, { n: exact.format(near.distance) }))));
    });
    return [
      element("h4", {}, texts.neighbours),
      element("p", { className: "small" }, say(texts.neighbours_text, { n: components })),
      element("ul", { className: "near" }, ...found),
    ];
  }

  /* The variance that the components keep. */

  function drawScree() {
    const { spectrum, components, target } = GALLERY;
    const sums = [];
    spectrum.reduce((total, one, i) => (sums[i] = total + one), 0);
    const kept = share.format(sums[components - 1]);
    const sentence = [say(texts.scree_text, { k: whole.format(components), share: kept })];
    if (target !== null) sentence.push(say(texts.scree_target, { target: share.format(target) }));
    $("scree-text").textContent = sentence.join(" ");
    const width = Math.max(280, $("scree-plot").clientWidth);
    $("scree-plot").replaceChildren(screePlot(sums, { width, components, target, kept }));
  }

  function screePlot(sums, { width, components, target, kept }) {
    const height = 250;
    const box = { left: 44, right: width - 12, top: 14, bottom: height - 42 };
    const long = sums.length > 50;
    const along = (k) => (sums.length < 2 ? 0.5
      : long ? Math.log(k) / Math.log(sums.length) : (k - 1) / (sums.length - 1));
    const x = (k) => box.left + along(k) * (box.right - box.left);
    const y = (value) => box.bottom - value * (box.bottom - box.top);
    const svg = (name, attributes, text = "") => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
      made.textContent = text;
      return made;
    };
    const line = (className, x1, y1, x2, y2) => svg("line", { class: className, x1, y1, x2, y2 });
    const path = (until) => sums.slice(0, until)
      .map((sum, i) => `${i ? "L" : "M"}${x(i + 1).toFixed(1)} ${y(sum).toFixed(1)}`).join("");
    const plot = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-labelledby": "scree scree-text",
    });
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      plot.append(line("grid", box.left, y(value), box.right, y(value)), svg("text", {
        x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, share.format(value)));
    }
    const ticks = (long ? [1, 3, 10, 30, 100, 300, 1000] : [1, 5, 10, 20, 30, 40, 50])
      .filter((k) => k <= sums.length);
    for (const k of ticks) {
      plot.append(svg("text", { x: x(k), y: box.bottom + 18, "text-anchor": "middle" },
        whole.format(k)));
    }
    plot.append(
      svg("text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" },
        long ? texts.scree_x_log : texts.scree_x),
      svg("path", { class: "area", d: `${path(components)}V${y(0)}H${x(1)}Z` }),
      svg("path", { class: "all", d: path(sums.length) }),
      svg("path", { class: "kept", d: path(components) }),
    );
    if (target !== null) {
      plot.append(line("target", box.left, y(target), box.right, y(target)), svg("text", {
        class: "asked", x: box.left + 6, y: y(target) + 16,
      }, say(texts.target, { target: share.format(target) })));
    }
    const [kx, ky] = [x(components), y(sums[components - 1])];
    const far = kx > (box.left + box.right) / 2;
    plot.append(
      line("drop", kx, ky, kx, box.bottom),
      svg("circle", { class: "chosen", cx: kx, cy: ky, r: 6 }),
      svg("text", { class: "k", x: kx + (far ? -8 : 8), y: box.bottom - 10,
        "text-anchor": far ? "end" : "start" }, `k = ${whole.format(components)} : ${kept}`),
    );
    return plot;
  }

  /* The list: what the map shows, for those who do not see it. */

  let order = null;

  function drawRows() {
    if (!$("list").open) return;
    if (!order) {
      const { compare } = new Intl.Collator(language, { numeric: true });
      const ranks = photos.labels.map((label, i) => [label, i])
        .sort((a, b) => compare(a[0], b[0]));
      const rank = new Map(ranks.map(([, number], i) => [number, i]));
      const of = (photo) => rank.get(photos.labelOf[photo]) ?? Infinity;
      order = Array.from(photos.paths.keys()).sort((a, b) => of(a) - of(b)
        || (photos.paths[a] < photos.paths[b] ? -1 : 1));
    }
    const found = order.filter((photo) => map.shown[photo]);
    const shown = found.slice(state.first, state.first + ROWS);
    $("rows").replaceChildren(...shown.map(row));
    $("previous").disabled = state.first === 0;
    $("next").disabled = state.first + ROWS >= found.length;
    $("pages").textContent = say(texts.page, {
      first: whole.format(Math.min(state.first + 1, found.length)),
      last: whole.format(state.first + shown.length),
      of: whole.format(found.length),
    });
  }

  function row(photo) {
    const { label, split, path } = words(photo);
    const training = photos.training(photo);
    const made = element("tr", {},
      element("td", {}, photos.tile(photo, 40)),
      element("td", {}, isolated(label)),
      element("td", { className: "path" }, isolated(path)),
      element("td", {}, isolated(split)),
      element("td", {}, training ? isolated(photos.label(training.photo)) : "–"),
      element("td", {}, element("button", {
        type: "button",
        "aria-label": say(texts.choose_photo, { path }),
        onclick: () => {
          choose(photo);
          $("selected").focus();
        },
      }, texts.choose)));
    if (photo === state.selected) made.setAttribute("aria-current", "true");
    return made;
  }

  function turn(rows) {
    state.first += rows;
    drawRows();
  }

  $("list").addEventListener("toggle", drawRows);
  $("previous").addEventListener("click", () => turn(-ROWS));
  $("next").addEventListener("click", () => turn(ROWS));

  recolour();
  filtered();
  drawScree();
  dark.addEventListener("change", recolour);
  new ResizeObserver(drawScree).observe($("scree-plot"));
  map.paint();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
