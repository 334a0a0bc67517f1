// A table whose rows can be opened and pinned, by mouse and by keyboard: one stop for Tab, arrow keys
// inside, A and B pin. It computes nothing and writes text through textContent only.

function render({ model, el }) {
  const holder = document.createElement("div"); // a wide table scrolls in itself
  holder.className = "sarlab-table-holder";
  const table = document.createElement("table");
  table.className = "sarlab-table";
  table.setAttribute("role", "grid");
  holder.append(table);
  el.append(holder);

  function cell(tag, text, letter) { // l: left, r: right, t: long text that may be clipped
    const made = document.createElement(tag);
    const long = letter === "t" && tag === "td"; // cut by its inner element, not by the cell
    const inner = long ? made.appendChild(document.createElement("div")) : made;
    inner.textContent = text;
    made.style.textAlign = letter === "r" ? "right" : "left";
    if (long) made.className = "sarlab-long";
    return made;
  }

  function draw() {
    const { header = [], align = "", rows = [], keys = [], tints = [] } = model.get("content");
    const sides = [...align];
    const pinning = model.get("pinning");
    table.setAttribute("aria-label", model.get("name"));
    const at = document.activeElement?.closest?.("tr")?.dataset.key;
    const within = table.contains(document.activeElement);
    table.replaceChildren();
    if (!header.length) return;
    const head = document.createElement("tr");
    head.append(...header.map((name, k) => cell("th", name, sides[k])));
    if (pinning) {
      head.append(cell("th", "pin as", "l"));
      head.lastChild.className = "sarlab-pins";
    }
    const top = document.createElement("thead");
    top.append(head);
    const body = document.createElement("tbody");
    const opened = model.get("opened");
    const stop = keys.includes(opened) ? opened : keys[0];
    rows.forEach((row, r) => {
      const key = keys[r];
      const line = document.createElement("tr");
      line.dataset.key = key;
      line.tabIndex = key === stop ? 0 : -1;
      line.setAttribute("aria-label", row.map((text, k) => text && `${header[k]} ${text}`.trim()).filter(Boolean).join(", "));
      line.setAttribute("aria-selected", String(key === model.get("opened")));
      line.append(...row.map((text, k) => cell("td", text, sides[k])));
      line.firstChild.style.backgroundColor = tints[r] ?? "";
      const open = () => { model.set("opened", key); model.save_changes(); };
      line.addEventListener("click", open);
      line.addEventListener("keydown", (event) => {
        if (event.target !== line) return;
        const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
        const place = pinning && !event.ctrlKey && !event.metaKey ? "ab".indexOf(event.key.toLowerCase()) : -1;
        if (step && line[step]) {
          line.tabIndex = -1;
          line[step].tabIndex = 0;
          line[step].focus();
        } else if (step) return;
        else if (place >= 0 && event.key.length === 1) pin(place, key);
        else if (event.key === "Enter" || event.key === " ") open();
        else return;
        event.preventDefault();
        event.stopPropagation();
      });
      if (pinning) line.append(pins(key, r, row));
      body.append(line);
    });
    table.append(top, body);
    if (within && at !== undefined) table.querySelector(`tr[data-key="${at}"]`)?.focus();
  }

  function pin(place, key) {
    const pinned = [...model.get("pinned")];
    pinned[place] = pinned[place] === key ? -1 : key;
    model.set("pinned", pinned);
    model.save_changes();
  }

  function pins(key, r, row) {
    const holder = document.createElement("td");
    holder.className = "sarlab-pins";
    ["A", "B"].forEach((name, place) => {
      const button = document.createElement("button");
      button.textContent = name;
      button.title = `Pin this answer as ${name} (key ${name} on its row)`;
      button.setAttribute("aria-label", `Pin answer ${r + 1} (${row[1]}) as ${name}`);
      button.tabIndex = -1;
      button.setAttribute("aria-pressed", String(model.get("pinned")[place] === key));
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        pin(place, key);
      });
      holder.append(button);
    });
    return holder;
  }

  const names = ["content", "opened", "pinned", "pinning", "name"].map((name) => "change:" + name);
  for (const name of names) model.on(name, draw);
  const scroll = () => el.scrollIntoView({ block: "center" }); // what was opened elsewhere shows here
  model.on("msg:custom", scroll);
  draw();
  return () => {
    for (const name of names) model.off(name, draw);
    model.off("msg:custom", scroll);
  };
}

export default { render };
