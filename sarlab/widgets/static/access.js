// Gives ipywidgets' controls what a screen reader needs: names for sliders and toggle groups, status
// lines that are spoken when they change, and the state of folds. Draws nothing.

function render({ el }) {
  const find = (root, selector) => root.querySelectorAll(selector);
  function name(root) {
    for (const slider of find(root, ".widget-slider, .widget-hslider")) {
      const label = slider.querySelector(".widget-label")?.textContent.trim();
      const handle = slider.querySelector(".noUi-handle");
      if (label && handle) handle.setAttribute("aria-label", label);
      const readout = slider.querySelector(".widget-readout");
      if (label && readout?.isContentEditable) {
        readout.setAttribute("role", "textbox");
        readout.setAttribute("aria-label", label);
        readout.tabIndex = -1; // the slider itself is the stop
      }
    }
    for (const line of find(root, ".sarlab-status")) {
      line.setAttribute("role", "status");
      line.setAttribute("aria-live", "polite");
    }
    for (const fold of find(root, ".sarlab-fold-button")) {
      fold.setAttribute("aria-expanded", String(fold.classList.contains("mod-active")));
    }
    for (const button of find(root, ".widget-toggle-button")) {
      button.setAttribute("aria-pressed", String(button.classList.contains("mod-active")));
    }
    for (const bar of find(root, ".sarlab-job .progress, .sarlab-job .widget-progress")) {
      bar.setAttribute("aria-label", "Progress");
    }
  }
  let waiting = 0;
  let watched = null;
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => watched && name(watched));
  };
  const observer = new MutationObserver(soon);
  const options = { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] };
  const start = () => {
    watched = el.closest(".sarlab-workbench, .sarlab-controls") || el.closest(".sarlab-runs");
    if (!watched) return void requestAnimationFrame(start); // not on the page yet
    observer.observe(watched, options);
    name(watched);
  };
  start();
  return () => observer.disconnect();
}

export default { render };
