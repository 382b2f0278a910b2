// Unfolds what a decision rests on. Everything is written as text, never as markup.
(() => {
  const words = { all: "needs all of these", any: "needs any of these", not: "needs the opposite of this" };
  let packed = null;

  async function unpack() {
    const text = document.getElementById("packed").textContent.trim();
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function node(tag, text, kind) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function criteria(items) {
    const list = node("ul", undefined, "criteria");
    for (const item of items) {
      const line = node("li");
      line.append(node("span", item.verdict, item.verdict), " · ", node("code", item.name));
      line.append(`: ${words[item.how] || item.text}`);
      if (item.parts.length) line.append(criteria(item.parts));
      list.append(line);
    }
    return list;
  }

  function value(item) {
    if (item === null) return node("span", "–");
    if (typeof item === "boolean") return node("span", item ? "yes" : "no");
    if (typeof item === "number") return node("span", Number.isInteger(item) ? item : Number(item.toPrecision(6)));
    if (typeof item !== "object") return node("span", item);
    if (Array.isArray(item) && !item.some((inner) => inner && typeof inner === "object")) {
      return node("span", item.join(", "));
    }
    if (Array.isArray(item)) {
      const all = node("div");
      all.append(...item.map(value));
      return all;
    }
    const table = node("table", undefined, "facts");
    for (const [key, inner] of Object.entries(item)) {
      const row = table.insertRow();
      row.append(node("td", key.replaceAll("_", " ")), node("td"));
      row.lastChild.append(value(inner));
    }
    return table;
  }

  async function fill(details) {
    if (details.dataset.filled) return;
    details.dataset.filled = "yes";
    try {
      packed = packed || unpack();
      const found = (await packed)[details.id];
      if (found.criteria.length) details.append(node("h3", "Criteria"), criteria(found.criteria));
      details.append(node("h3", "Evidence"), value(found.evidence));
    } catch (error) {
      details.append(node("p", `This browser cannot unpack it (${error}); see report.json.`));
    }
  }

  for (const details of document.querySelectorAll("details.packed")) {
    details.addEventListener("toggle", () => details.open && fill(details));
  }

  function show() {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = wanted; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (wanted) wanted.scrollIntoView();
  }
  addEventListener("hashchange", show);
  show();
})();
