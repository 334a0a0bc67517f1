// The worker: answers {id, method, argument} with {id, result} or {id, error}.

import { Engine } from "./engine.js";

let engine; // a promise: what comes before it is there waits for it
self.onmessage = async ({ data: { id, method, argument } }) => {
  try {
    if (method === "load") {
      engine = Engine.load(argument.data, argument.packed);
      await engine;
      self.postMessage({ id, result: true });
    } else {
      self.postMessage({ id, result: (await engine)[method](argument) });
    }
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
