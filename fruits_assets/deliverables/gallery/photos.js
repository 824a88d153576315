"use strict";

/* What gallery.js says of the photos, unpacked. A photo is its number, 0 to count - 1. */

const NONE = 0xffff; // no label, no split, no neighbour

// The same as HIDDEN of escaping.py.
const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** A stranger's text with what cannot be seen, but changes what is, as U+FFFD. */
const visible = (text) => text.replace(HIDDEN, "\ufffd");

/** An element with properties and children; strings become text, never markup. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** A typed array out of base64 of its little-endian bytes. */
function unpacked(text, Kind) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return new Kind(bytes.buffer);
}

class Photos {
  constructor(data, texts) {
    this.texts = texts;
    this.data = data;
    this.paths = data.paths;
    this.count = data.paths.length;
    this.labels = data.labels;
    this.labelOf = unpacked(data.label, Uint16Array);
    this.splitOf = unpacked(data.split, Uint16Array);
    this.x = unpacked(data.x, Float32Array);
    this.y = unpacked(data.y, Float32Array);
    this.sheetOf = unpacked(data.sheet, Uint16Array);
    this.placeOf = unpacked(data.place, Uint16Array);
    this.near = unpacked(data.neighbours, Uint16Array);
    this.away = unpacked(data.distances, Float32Array);
    this.teacher = unpacked(data.training, Uint16Array);
    this.teacherAway = unpacked(data.trainingDistance, Float32Array);
  }

  label(photo) {
    const number = this.labelOf[photo];
    return number === NONE ? this.texts.unlabelled : visible(this.labels[number]);
  }

  split(photo) {
    const number = this.splitOf[photo];
    return number === NONE ? this.texts.no_split : visible(this.data.splits[number]);
  }

  path(photo) {
    return visible(this.paths[photo]);
  }

  sameLabel(one, other) {
    return this.labelOf[one] === this.labelOf[other];
  }

  /** The most similar photos on all components, the nearest first. */
  neighbours(photo) {
    const each = this.near.length / this.count;
    const found = [];
    for (let i = photo * each; i < (photo + 1) * each; i += 1) {
      if (this.near[i] !== NONE) found.push({ photo: this.near[i], distance: this.away[i] });
    }
    return found;
  }

  /** The most similar other photo that is in the Training split; null where there is none. */
  training(photo) {
    if (this.teacher[photo] === NONE) return null;
    return { photo: this.teacher[photo], distance: this.teacherAway[photo] };
  }

  /** Name of the sheet, and of the thumbnail in it: left and top in pixels of the sheet. */
  thumbnail(photo) {
    const { sheets, columns, tile } = this.data;
    const place = this.placeOf[photo];
    const row = Math.floor(place / columns);
    return { sheet: sheets[this.sheetOf[photo]], left: (place % columns) * tile, top: row * tile };
  }

  /** An element that shows the thumbnail; what it shows is said beside it. */
  tile(photo, side) {
    const { sheet, left, top } = this.thumbnail(photo);
    const zoom = side / this.data.tile;
    const shown = element("span", { className: "tile", "aria-hidden": "true" });
    shown.style.width = `${side}px`;
    shown.style.height = `${side}px`;
    shown.style.backgroundImage = `url("${sheet}")`;
    shown.style.backgroundSize = `${this.data.columns * side}px auto`;
    shown.style.backgroundPosition = `${-left * zoom}px ${-top * zoom}px`;
    return shown;
  }
}
