// Calls the engine in its worker; without workers, in the page itself.

import { Engine } from "./engine.js";

export function startEngine(data, packed, workerSource) {
  let worker;
  try {
    worker = new Worker(URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" })));
  } catch {
    const ready = Engine.load(data, packed); // an old or a strict browser: slower to the touch, no other difference
    return async (method, argument) => {
      const engine = await ready;
      return method === "load" ? true : engine[method](argument);
    };
  }
  const waiting = new Map();
  let sent = 0;
  worker.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result); else reject(new Error(error));
  };
  const call = (method, argument) => new Promise((resolve, reject) => {
    waiting.set(++sent, { resolve, reject });
    worker.postMessage({ id: sent, method, argument });
  });
  const loaded = call("load", { data, packed });
  return (method, argument) => (method === "load" ? loaded : call(method, argument));
}
