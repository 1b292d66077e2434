"use strict";
(() => {
  const all = [...document.querySelectorAll(".item")];
  const bar = document.querySelector("form.bar");
  const help = document.querySelector("dialog");
  const count = document.querySelector(".count");
  const served = bar !== null && bar.dataset.served !== undefined;
  const texts = new Map(all.map((item) => [item, item.textContent.toLowerCase()]));
  const shown = () => all.filter((item) => !item.hidden);

  const fits = (item, wanted) => {
    for (const [part, value] of wanted) {
      if (value === "") continue;
      if (part === "q" && !value.toLowerCase().split(/\s+/).every((word) => texts.get(item).includes(word))) return false;
      if (["benchmark", "categories", "sources", "outcomes"].includes(part) && !item.dataset[part].split("\u001f").includes(value)) return false;
    }
    // One of its scores is within both limits, as in the query of a served gallery.
    const { low, high } = Object.fromEntries(wanted);
    const within = (score) => (!low || score >= Number(low)) && (!high || score <= Number(high));
    return (!low && !high) || item.dataset.scores.split(" ").filter(Boolean).map(Number).some(within);
  };

  const filter = () => {
    const wanted = [...new FormData(bar)];
    let n = 0;
    for (const item of all) {
      item.hidden = !fits(item, wanted);
      n += item.hidden ? 0 : 1;
    }
    count.textContent = n === all.length ? `${n} items` : `${n} of ${all.length} items`;
  };

  const label = (veil) => veil.setAttribute("aria-expanded", String(veil.classList.contains("open")));
  const lift = (veil) => {
    if (document.body.classList.contains("clear") || veil.classList.contains("open")) return;
    veil.classList.add("open");
    label(veil);
  };
  const toggleItem = (item) => {
    const veils = [...item.querySelectorAll(".veil")];
    const open = veils.some((veil) => !veil.classList.contains("open"));
    for (const veil of veils) {
      veil.classList.toggle("open", open);
      label(veil);
    }
  };
  const toggleAll = () => {
    const clear = document.body.classList.toggle("clear");
    const button = document.querySelector("#blur");
    if (button) button.textContent = clear ? "Blur all" : "Unblur all";
    for (const veil of document.querySelectorAll(".veil.open")) {
      veil.classList.remove("open");
      label(veil);
    }
  };

  document.addEventListener("click", (event) => {
    const veil = event.target.closest(".veil");
    if (veil) lift(veil);
  });

  const step = (by) => {
    const items = shown();
    if (!items.length) return;
    const at = items.indexOf(document.activeElement?.closest?.(".item"));
    const next = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && typing) return event.target.blur();
    if (typing || help?.open) return;
    const item = document.activeElement?.closest?.(".item");
    const veil = event.target.closest?.(".veil");
    if ((event.key === "Enter" || event.key === " ") && veil) lift(veil);
    else if ((event.key === "Enter" || event.key === " ") && event.target === item && item) toggleItem(item);
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "v" && item) toggleItem(item);
    else if (event.key === "b") toggleAll();
    else if (event.key === "/") bar?.querySelector("[type=search]")?.focus();
    else if (event.key === "?") help?.showModal();
    else if (event.key === "n") document.querySelector("[rel=next]")?.click();
    else if (event.key === "p") document.querySelector("[rel=prev]")?.click();
    else return;
    event.preventDefault();
  });

  document.querySelector("#blur")?.addEventListener("click", toggleAll);
  document.querySelector("#keys")?.addEventListener("click", () => help?.showModal());
  if (bar && served) bar.addEventListener("change", () => bar.requestSubmit());
  if (bar && !served) {
    bar.addEventListener("input", filter);
    bar.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }
})();
