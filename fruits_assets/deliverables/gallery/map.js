"use strict";

/* The photos as points in the plane of two components, to zoom, to pan and to walk about in. */

const PLUS = [
  [-0.4, -1.15], [0.4, -1.15], [0.4, -0.4], [1.15, -0.4], [1.15, 0.4], [0.4, 0.4],
  [0.4, 1.15], [-0.4, 1.15], [-0.4, 0.4], [-1.15, 0.4], [-1.15, -0.4], [-0.4, -0.4],
];
const TURN = Math.SQRT1_2;

/** Outlines by the names that Matplotlib gives markers; the circle has none. */
const SHAPES = {
  s: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  "^": [[0, -1.2], [1.15, 0.85], [-1.15, 0.85]],
  D: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
  v: [[0, 1.2], [1.15, -0.85], [-1.15, -0.85]],
  P: PLUS,
  X: PLUS.map(([x, y]) => [TURN * (x - y), TURN * (x + y)]),
  p: [0, 1, 2, 3, 4].map((i) => [
    1.15 * Math.sin((2 * Math.PI * i) / 5), -1.15 * Math.cos((2 * Math.PI * i) / 5),
  ]),
};

function trace(pen, marker, x, y, radius) {
  const shape = SHAPES[marker];
  if (!shape) {
    pen.moveTo(x + radius, y);
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    return;
  }
  shape.forEach(([dx, dy], i) => {
    if (i) pen.lineTo(x + radius * dx, y + radius * dy);
    else pen.moveTo(x + radius * dx, y + radius * dy);
  });
  pen.closePath();
}

const MARGIN = 44; // around all photos, pixels
const SIDE = 46; // of a thumbnail on the map
const CROWDED = 0.75; // share of the map that thumbnails may cover
const REACH = 16; // pixels from a point that still touch it
const DEEPEST = 500; // times the scale at which all photos are seen
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class PhotoMap {
  /**
   * @param frame the focusable element that holds a canvas
   * @param photos the Photos
   * @param axes names of the two components
   * @param told { hovered(photo, x, y), moved(photo), chosen(photo) }; photo is -1 for none
   */
  constructor(frame, photos, axes, told) {
    Object.assign(this, { frame, photos, axes, told });
    this.canvas = frame.querySelector("canvas");
    this.pen = this.canvas.getContext("2d");
    this.left = new Float32Array(photos.count);
    this.top = new Float32Array(photos.count);
    this.shown = new Uint8Array(photos.count).fill(1);
    this.groups = [];
    this.colours = {};
    this.thumbnails = true;
    this.drawn = []; // photos that are drawn as thumbnails
    this.sheets = new Map();
    this.cursor = -1;
    this.pointed = -1;
    this.selected = -1;
    this.pointers = new Map();
    this.bounds = this.extent();
    this.measure();
    this.fit();
    this.listen();
    new ResizeObserver(() => this.resized()).observe(frame);
  }

  extent() {
    const { x, y, count } = this.photos;
    const box = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < count; i += 1) {
      box[0] = Math.min(box[0], x[i]);
      box[1] = Math.max(box[1], x[i]);
      box[2] = Math.min(box[2], y[i]);
      box[3] = Math.max(box[3], y[i]);
    }
    return box;
  }

  measure() {
    this.width = this.frame.clientWidth;
    this.height = this.frame.clientHeight;
    const density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * density);
    this.canvas.height = Math.round(this.height * density);
    this.pen.setTransform(density, 0, 0, density, 0, 0);
  }

  resized() {
    const all = this.scale === this.whole;
    this.measure();
    if (all) this.fit();
    else this.repaint();
  }

  /** One scale for both components: distances on the map are those of the plane. */
  fit() {
    const [west, east, south, north] = this.bounds;
    this.x = (west + east) / 2;
    this.y = (south + north) / 2;
    this.whole = Math.min(
      Math.max(1, this.width - 2 * MARGIN) / (east - west || 1),
      Math.max(1, this.height - 2 * MARGIN) / (north - south || 1),
    );
    this.scale = this.whole;
    this.repaint();
  }

  /** Zooms about a point of the map, its middle without; false if it is as far out as it goes. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(this.whole * DEEPEST, Math.max(this.whole, this.scale * factor));
    if (scale === this.scale) return false;
    if (scale === this.whole) {
      this.fit();
      return true;
    }
    const dx = px - this.width / 2;
    const dy = py - this.height / 2;
    this.x += dx / this.scale - dx / scale;
    this.y -= dy / this.scale - dy / scale;
    this.scale = scale;
    this.repaint();
    return true;
  }

  pan(dx, dy) {
    this.x -= dx / this.scale;
    this.y += dy / this.scale;
    this.scale = Math.max(this.scale, this.whole * (1 + 1e-9)); // not the whole any more
    this.repaint();
  }

  /** Moves no further than it takes to see a photo. */
  reveal(photo) {
    this.place();
    const edge = MARGIN;
    const dx = Math.min(0, this.width - edge - this.left[photo]) + Math.max(0, edge - this.left[photo]);
    const dy = Math.min(0, this.height - edge - this.top[photo]) + Math.max(0, edge - this.top[photo]);
    if (dx || dy) this.pan(dx, dy);
    else this.repaint();
  }

  select(photo) {
    this.selected = photo;
    this.cursor = photo;
    if (photo >= 0) this.reveal(photo);
    else this.repaint();
  }

  repaint() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.paint();
    });
  }

  /** Where photos are on the map. */
  place() {
    const { x, y, count } = this.photos;
    for (let i = 0; i < count; i += 1) {
      this.left[i] = (x[i] - this.x) * this.scale + this.width / 2;
      this.top[i] = this.height / 2 - (y[i] - this.y) * this.scale;
    }
  }

  isSeen(photo, margin = 0) {
    return (
      this.left[photo] > -margin && this.left[photo] < this.width + margin &&
      this.top[photo] > -margin && this.top[photo] < this.height + margin
    );
  }

  paint() {
    this.place();
    this.pen.clearRect(0, 0, this.width, this.height);
    this.paintAxes();
    this.paintHidden();
    this.drawn = this.thumbnails ? this.roomForThumbnails() : [];
    if (!this.drawn.length) this.paintPoints();
    this.paintLinks();
    for (const photo of this.drawn) this.paintThumbnail(photo);
    this.paintNames();
    this.paintRings();
  }

  paintAxes() {
    const { pen, width, height, colours } = this;
    pen.strokeStyle = colours.hairline;
    pen.lineWidth = 1;
    pen.beginPath();
    const zeroX = Math.round(width / 2 - this.x * this.scale) + 0.5;
    const zeroY = Math.round(height / 2 + this.y * this.scale) + 0.5;
    pen.moveTo(zeroX, 0);
    pen.lineTo(zeroX, height);
    pen.moveTo(0, zeroY);
    pen.lineTo(width, zeroY);
    pen.stroke();
  }

  paintNames() {
    const { pen, width, height, colours } = this;
    pen.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
    pen.fillStyle = colours.muted;
    pen.strokeStyle = colours.tile;
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    const write = (text, room) => {
      pen.strokeText(text, 0, 0, room);
      pen.fillText(text, 0, 0, room);
    };
    pen.save();
    pen.translate(12, height - 12);
    write(`${this.axes[0]} →`, width - 150);
    pen.translate(8, -22);
    pen.rotate(-Math.PI / 2);
    write(`${this.axes[1]} →`, height - 60);
    pen.restore();
  }

  get radius() {
    const wide = this.photos.count > 4000 ? 2.6 : this.photos.count > 600 ? 3.4 : 5;
    const least = wide * Math.min(1, Math.sqrt(this.width / 600));
    return Math.max(least, Math.min(6, least * (this.scale / this.whole) ** 0.3));
  }

  /** What a filter leaves out stays as a trace. */
  paintHidden() {
    const { pen } = this;
    pen.fillStyle = this.colours.rest;
    pen.globalAlpha = 0.35;
    pen.beginPath();
    for (let i = 0; i < this.photos.count; i += 1) {
      if (!this.shown[i] && this.isSeen(i)) pen.rect(this.left[i] - 1, this.top[i] - 1, 2, 2);
    }
    pen.fill();
    pen.globalAlpha = 1;
  }

  paintPoints() {
    const { pen } = this;
    pen.globalAlpha = this.photos.count > 4000 ? 0.75 : 0.9;
    for (const group of this.groups) {
      pen.fillStyle = group.colour;
      pen.beginPath();
      for (const photo of group.photos) {
        if (this.shown[photo] && this.isSeen(photo, 8)) {
          trace(pen, group.marker, this.left[photo], this.top[photo], this.radius);
        }
      }
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** The photos in sight, one for each place, if there is room for their thumbnails; else none. */
  roomForThumbnails() {
    const most = (CROWDED * this.width * this.height) / SIDE ** 2;
    const seen = new Map();
    for (let i = 0; i < this.photos.count; i += 1) {
      if (!this.shown[i] || !this.isSeen(i, SIDE / 2)) continue;
      const place = `${Math.round(this.left[i] / 4)} ${Math.round(this.top[i] / 4)}`;
      if (!seen.has(place)) seen.set(place, i);
      if (seen.size > most) return [];
    }
    return [...seen.values()];
  }

  paintThumbnail(photo, side = SIDE) {
    const { pen } = this;
    const { sheet, left, top } = this.photos.thumbnail(photo);
    const image = this.sheet(sheet);
    const group = this.groups[this.groupOf[photo]];
    const [x, y] = [this.left[photo] - side / 2, this.top[photo] - side / 2];
    pen.save();
    pen.beginPath();
    pen.roundRect(x, y, side, side, 7);
    pen.fillStyle = group.colour;
    pen.fill();
    pen.beginPath();
    pen.roundRect(x + 2, y + 2, side - 4, side - 4, 5);
    pen.clip();
    const { tile } = this.photos.data;
    if (image.complete && image.naturalWidth) {
      pen.drawImage(image, left, top, tile, tile, x + 2, y + 2, side - 4, side - 4);
    }
    pen.restore();
  }

  /** A sheet of thumbnails is read when one of them is seen. */
  sheet(name) {
    if (!this.sheets.has(name)) {
      const image = new Image();
      image.onload = () => this.repaint();
      image.src = name;
      this.sheets.set(name, image);
    }
    return this.sheets.get(name);
  }

  paintLinks() {
    if (this.selected < 0) return;
    const { pen, colours } = this;
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 1.25;
    pen.globalAlpha = 0.7;
    pen.beginPath();
    for (const { photo } of this.photos.neighbours(this.selected)) {
      pen.moveTo(this.left[this.selected], this.top[this.selected]);
      pen.lineTo(this.left[photo], this.top[photo]);
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  paintRings() {
    if (this.selected >= 0) {
      for (const { photo } of this.photos.neighbours(this.selected).reverse()) {
        if (this.drawn.length) this.paintThumbnail(photo);
        this.ring(photo, 1.5, "ink");
      }
      this.paintThumbnail(this.selected, SIDE + 10);
      this.ring(this.selected, 3, "accent", SIDE + 10);
    }
    for (const photo of [this.pointed, this.cursor]) {
      if (photo >= 0 && photo !== this.selected) this.ring(photo, 3, "ink");
    }
  }

  ring(photo, line, colour, side = this.drawn.length ? SIDE : 0) {
    const { pen } = this;
    const reach = side ? side / 2 : this.radius + 3;
    pen.strokeStyle = this.colours[colour];
    pen.lineWidth = line;
    pen.beginPath();
    pen.roundRect(
      this.left[photo] - reach, this.top[photo] - reach, 2 * reach, 2 * reach, side ? 8 : reach,
    );
    pen.stroke();
  }

  /** The photo at a point of the map, -1 for none. */
  at(px, py) {
    const reach = this.drawn.length ? SIDE * 0.6 : REACH;
    let best = -1;
    let least = reach ** 2;
    for (let i = 0; i < this.photos.count; i += 1) {
      if (!this.shown[i]) continue;
      const square = (this.left[i] - px) ** 2 + (this.top[i] - py) ** 2;
      if (square <= least) {
        best = i;
        least = square;
      }
    }
    return best;
  }

  /** The next photo in a direction: rather straight ahead than near; -1 for none. */
  next(from, [dx, dy]) {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.photos.count; i += 1) {
      if (!this.shown[i] || i === from) continue;
      const [x, y] = [this.left[i] - this.left[from], this.top[i] - this.top[from]];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (ahead <= 0.01 || aside > 2 * ahead) continue;
      const cost = ahead + 2 * aside;
      if (cost < least) {
        best = i;
        least = cost;
      }
    }
    return best;
  }

  /** The photo nearest to the middle of what is seen; -1 for none. */
  central() {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.photos.count; i += 1) {
      if (!this.shown[i]) continue;
      const far = (this.left[i] - this.width / 2) ** 2 + (this.top[i] - this.height / 2) ** 2;
      if (far < least) {
        best = i;
        least = far;
      }
    }
    return best;
  }

  step(direction) {
    this.place();
    const here = this.cursor >= 0 && this.shown[this.cursor];
    const photo = here ? this.next(this.cursor, direction) : this.central();
    if (photo < 0) return;
    this.cursor = photo;
    this.reveal(photo);
    this.told.moved(photo, this.left[photo], this.top[photo]);
  }

  /** What a button or a key does. */
  command(name) {
    const [wide, high] = [0.2 * this.width, 0.2 * this.height];
    const commands = {
      zoom_in: () => this.zoom(1.5),
      zoom_out: () => this.zoom(1 / 1.5),
      fit: () => this.fit(),
      pan_left: () => this.pan(wide, 0),
      pan_right: () => this.pan(-wide, 0),
      pan_up: () => this.pan(0, high),
      pan_down: () => this.pan(0, -high),
    };
    commands[name]();
  }

  listen() {
    const { frame } = this;
    frame.addEventListener("keydown", (event) => this.pressed(event));
    frame.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.grasped(event));
    frame.addEventListener("pointermove", (event) => this.dragged(event));
    frame.addEventListener("pointerup", (event) => this.released(event));
    frame.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    frame.addEventListener("pointerleave", () => this.point(-1));
    frame.addEventListener("blur", () => this.point(-1));
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = { "+": "zoom_in", "=": "zoom_in", "-": "zoom_out", "0": "fit" };
    if (event.key in STEPS) {
      if (event.shiftKey) this.command(`pan_${event.key.slice(5).toLowerCase()}`);
      else this.step(STEPS[event.key]);
    } else if (event.key in keys) {
      this.command(keys[event.key]);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor >= 0) {
      this.told.chosen(this.cursor);
    } else if (event.key === "Escape") {
      this.told.chosen(-1);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** As far out as it goes, the wheel scrolls the page: nobody is caught in the map. */
  wheeled(event) {
    const { x, y } = this.where(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (this.zoom(Math.exp(-0.0016 * lines * event.deltaY), x, y)) event.preventDefault();
  }

  /** Shows which photo the pointer is on, -1 for none. */
  point(photo) {
    if (photo !== this.pointed) this.repaint();
    this.pointed = photo;
    this.told.hovered(photo, this.left[photo], this.top[photo]);
  }

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  grasped(event) {
    if (event.button) return;
    this.frame.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.where(event));
    this.still = this.pointers.size === 1 ? this.where(event) : null;
  }

  dragged(event) {
    const now = this.where(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.point(this.at(now.x, now.y));
      return;
    }
    if (this.still && Math.hypot(now.x - this.still.x, now.y - this.still.y) < 4) return;
    this.still = null;
    this.frame.classList.add("dragging");
    this.point(-1);
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, now);
    const share = 1 / this.pointers.size;
    this.pan(share * (now.x - before.x), share * (now.y - before.y));
    for (const [, other] of others.slice(0, 1)) {
      const apart = Math.hypot(now.x - other.x, now.y - other.y);
      const were = Math.hypot(before.x - other.x, before.y - other.y) || 1;
      this.zoom(apart / were, (now.x + other.x) / 2, (now.y + other.y) / 2);
    }
  }

  released(event) {
    this.pointers.delete(event.pointerId);
    this.frame.classList.remove("dragging");
    if (!this.still) return;
    const photo = this.at(this.still.x, this.still.y);
    this.still = null;
    if (photo >= 0) this.told.chosen(photo);
  }
}
