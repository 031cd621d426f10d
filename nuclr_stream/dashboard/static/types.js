// What the page keeps, typed once. Arrays have one entry per unit, in the order of the probe's rows.

/**
 * @typedef {Object} Task
 * @property {string} name
 * @property {string[]} classes
 */

/**
 * @typedef {Object} Segment
 * @property {string} region
 * @property {number} from_um
 * @property {number} to_um
 * @property {number} probability
 */

/**
 * @typedef {Object} Boundary
 * @property {string} below
 * @property {string} above
 * @property {number} depth_um
 * @property {number} low_um
 * @property {number} high_um
 * @property {number} probability
 */

/**
 * @typedef {Object} PlacedShank
 * @property {number} shank
 * @property {string} reason
 * @property {number} units
 * @property {Segment[]} segments
 * @property {Boundary[]} boundaries
 */

/**
 * @typedef {Object} PlanShank
 * @property {number} shank
 * @property {string} reason
 * @property {number|null} offset_um
 * @property {number|null} low_um
 * @property {number|null} high_um
 * @property {number|null} agreement
 */

/**
 * @typedef {Object} Placement
 * @property {string} [reason]
 * @property {string[]} [classes]
 * @property {PlacedShank[]} [shanks]
 * @property {PlanShank[]} [plan]
 * @property {{region: string, from_um: number, to_um: number}[]} [planned]
 */

/**
 * @typedef {Object} Summary How a probe is doing, from the header of a frame.
 * @property {string} stream
 * @property {number} place
 * @property {number} layout
 * @property {number} units
 * @property {string} [state]
 * @property {string[]} [reasons]
 * @property {number} [progress]
 * @property {number} [skipped_steps]
 * @property {number} [time_s]
 * @property {number} [step]
 * @property {number} [missing]
 * @property {number} [hop_s]
 * @property {number} [window_s]
 * @property {number} [active_units]
 * @property {number[]} [flips]
 * @property {Object<string, number>} [counters]
 * @property {{p50: number, p95: number, p99: number, steps: number}} [latency_ms]
 */

/**
 * @typedef {Object} Activity
 * @property {number} layout
 * @property {number} bins
 * @property {number} bits
 * @property {number} end_s
 * @property {number} window_s
 * @property {Uint8Array} counts
 * @property {Uint8Array} observed
 */

/**
 * @typedef {Object} Probe
 * @property {string} stream
 * @property {Summary} summary
 * @property {number} layout
 * @property {string[]} unitIds
 * @property {Task[]} tasks
 * @property {Object<string, any>} of  typed arrays by name: depth_um, shank, top0, p0, why0, flags, rate, ...
 * @property {{top: Uint8Array, p: Uint8Array, task: number}|null} brief
 * @property {Activity|null} activity
 * @property {Placement} placement
 * @property {number} placed  counts the placements that came
 * @property {number} version  counts what changed
 * @property {number} at  when its predictions changed last, performance.now()
 */

/**
 * @typedef {Object} UnitDetail
 * @property {string} stream
 * @property {string} unit_id
 * @property {{name: string, classes: string[], probabilities: number[], set: string[], why: number}[]} tasks
 * @property {any} evidence
 * @property {Object<string, any>} arrays
 */

/**
 * @typedef {Object} Alert
 * @property {string} level
 * @property {string} stream
 * @property {string} text
 * @property {string} detail
 */

/**
 * @typedef {Object} Happening
 * @property {number} number
 * @property {number} unix_s
 * @property {string} stream
 * @property {string} kind
 * @property {string} detail
 * @property {number|null} sample_s
 */

/**
 * @typedef {Object} Words
 * @property {Object<string, string>} why
 * @property {Object<string, string>} flags
 * @property {Object<string, string>} states
 * @property {Object<string, string>} reasons
 * @property {Object<string, string>} losses
 * @property {Object<string, string>} sets
 * @property {Object<string, string>} placement
 */

export {};
