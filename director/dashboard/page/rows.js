// Table bodies that follow a list: a row stays the same element while its item is listed, so that a reader's focus and
// selection are kept. No state but the rows themselves.

/** Have `body` show `items`; `make` gives the cells of a new row, `fill` writes an item into its cells. */
export function follow(body, items, key, make, fill) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  items.forEach((item, place) => {
    const name = String(key(item));
    let row = old.get(name);
    if (row) old.delete(name);
    else {
      row = document.createElement("tr");
      row.dataset.key = name;
      row.append(...make(item));
    }
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
    fill(row.children, item);
  });
  for (const row of old.values()) row.remove();
}

export function cell(className = "", tag = "td") {
  const made = document.createElement(tag);
  made.className = className;
  if (tag === "th") made.scope = "row";
  return made;
}

export function button(click) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "plain";
  made.addEventListener("click", click);
  return made;
}

/** Write only changes: a screen reader would read a text that is set again, and its selection would be lost. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same for a text that may be cut: its title has all of it. */
export function writeClipped(element, text) {
  if (element.textContent === text) return;
  element.textContent = element.title = text;
}
