// The websocket: same origin, relative address, back within a second, and a word to the server for every frame drawn.

import { unpack } from "./frames.js";

const AGAIN_MS = [100, 250, 500, 1000];
const SILENT_MS = 3000; // the server sends at least once a second

export class Link {
  /**
   * @param {(header: any, arrays: Object<string, any>) => void} take every frame
   * @param {(open: boolean) => void} changed
   */
  constructor(take, changed) {
    this.take = take;
    this.changed = changed;
    this.tries = 0;
    this.received = 0;
    this.bytes = 0;
    this.heardAt = 0;
    /** @type {WebSocket|null} */
    this.socket = null;
    /** @type {Object<string, any>} what the server must know again after a reconnect */
    this.wishes = {};
    setInterval(() => this.check(), 500);
    this.open();
  }

  get isOpen() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  open() {
    const url = new URL("live", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = "";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heardAt = performance.now();
    socket.onopen = () => {
      this.tries = 0;
      this.changed(true);
      this.say(this.wishes);
    };
    socket.onmessage = (event) => {
      this.heardAt = performance.now();
      this.bytes += event.data.byteLength;
      const { header, arrays } = unpack(event.data);
      if (header.kind === "frame") this.received += 1;
      this.take(header, arrays);
    };
    socket.onclose = () => this.lost(socket);
  }

  /** @param {WebSocket} socket */
  lost(socket) {
    if (this.socket !== socket) return;
    this.socket = null;
    this.changed(false);
    setTimeout(() => this.open(), AGAIN_MS[Math.min(this.tries++, AGAIN_MS.length - 1)]);
  }

  /** A connection that is open and silent is broken: a laptop slept, a tunnel fell. */
  check() {
    const socket = this.socket;
    // a hidden page draws nothing, so the server rightly sends nothing
    if (socket === null || document.hidden || performance.now() - this.heardAt < SILENT_MS) return;
    socket.onclose = null;
    socket.close();
    this.lost(socket);
  }

  /** @param {Object<string, any>} message */
  say(message) {
    if (this.isOpen && this.socket) this.socket.send(JSON.stringify(message));
  }

  /** @param {Object<string, any>} message what is to hold from now on, over reconnects too */
  wish(message) {
    Object.assign(this.wishes, message);
    this.say(message);
  }
}
