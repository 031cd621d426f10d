// Frames of the server: a JSON header and raw arrays behind it, viewed in place. frames.py describes the bytes.

/** @type {Object<string, any>} */
const TYPES = { u1: Uint8Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array };

/**
 * @param {ArrayBuffer} buffer one frame
 * @returns {{header: any, arrays: Object<string, any>}}
 */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  /** @type {Object<string, any>} */
  const arrays = {};
  for (const [name, type, offset, size] of header.arrays) {
    arrays[name] = new TYPES[type](buffer, 4 + length + offset, size);
  }
  return { header, arrays };
}
