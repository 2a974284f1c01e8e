"""Style sheet and script of the page. Nothing in them loads anything; the page reads without the script too."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --panel: #ffffff; --ink: #1b2330; --soft: #5d6878; --line: #dfe3ea; --track: #eceff4;
  --think: #6a55d9; --no-think: #1f9487; --context: #b4bdcc; --supervised: #2f9e44;
  --mark: #d3f4da; --mark-line: #2f9e44; --item: #0b63a5; --warn: #a4570a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #11151c; --panel: #1a202a; --ink: #e6eaf1; --soft: #98a3b5; --line: #2b3442; --track: #252d3a;
    --think: #9a8bff; --no-think: #3cbcae; --context: #4d5a6e; --supervised: #51c46a;
    --mark: #17402a; --mark-line: #51c46a; --item: #7cc0f5; --warn: #f0b36a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 1.25rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .25rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .75rem; }
h3 { font-size: .95rem; margin: 0 0 .6rem; }
p.note { color: var(--soft); font-size: .875rem; margin: .5rem 0 0; }
header p { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin-top: 1.25rem; }
.tile, .panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .8125rem; }
.tile.warn b { color: var(--warn); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .75rem;
  align-items: start; }
.panel { padding: .9rem 1rem; min-width: 0; }
.wide { grid-column: 1 / -1; }
@media (min-width: 76rem) { .broad { grid-column: span 2; } }
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--panel) 40%, transparent) left / 2rem 100% no-repeat local,
  linear-gradient(to left, var(--panel) 40%, transparent) right / 2rem 100% no-repeat local,
  linear-gradient(to right, var(--line), transparent) left / .6rem 100% no-repeat scroll,
  linear-gradient(to left, var(--line), transparent) right / .6rem 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: left; padding: .3rem .65rem .3rem 0; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
td { overflow-wrap: break-word; white-space: pre-line; }
td.long { overflow-wrap: anywhere; min-width: 11rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody tr.first > td { border-top: 1px solid var(--line); }
tbody tr.more > td { border-top-color: transparent; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
svg text.figure { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .track { fill: var(--track); }
svg .think { fill: var(--think); } svg .no-think { fill: var(--no-think); }
svg .context { fill: var(--context); } svg .supervised { fill: var(--supervised); }
svg .tick { fill: var(--ink); }
svg .axis { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .6rem 0 0; font-size: .8125rem;
  color: var(--soft); }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .35rem; }
.legend i.think { background: var(--think); } .legend i.no-think { background: var(--no-think); }
.legend i.context { background: var(--context); } .legend i.supervised { background: var(--supervised); }
.legend i.tick { background: var(--ink); width: 2px; }
.controls { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .5rem 1rem;
  align-items: center;
  background: var(--ground); padding: .6rem 0; border-bottom: 1px solid var(--line); font-size: .875rem; }
.controls label { display: inline-flex; gap: .4rem; align-items: center; }
select, button { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; padding: .25rem .5rem; max-width: 60vw; }
button { cursor: pointer; }
article { margin-top: .75rem; }
article[hidden] { display: none; }
article h3 { overflow-wrap: anywhere; margin-bottom: .35rem; }
.chips { display: flex; flex-wrap: wrap; gap: .3rem; margin-bottom: .5rem; font-size: .8125rem; }
.chip { border: 1px solid var(--line); border-radius: 99px; padding: 0 .55rem; color: var(--soft);
  overflow-wrap: anywhere; }
.chip.think { border-color: var(--think); color: var(--think); }
.chip.no-think { border-color: var(--no-think); color: var(--no-think); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 26rem; overflow-y: auto; padding: .7rem .8rem;
  background: var(--ground); border-radius: 8px; font: .8125rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas,
  "Noto Sans Mono CJK SC", monospace; }
.text.open { max-height: none; }
mark { background: var(--mark); color: inherit; border-bottom: 1px solid var(--mark-line); padding: .1em 0; }
.template { color: var(--soft); }
.item { color: var(--item); text-decoration: underline dotted; text-underline-offset: 3px; cursor: help; }
.item + .item { margin-left: .25em; }
.item:focus { outline: 2px solid var(--item); outline-offset: 1px; border-radius: 2px; }
.captions .item { text-decoration: none; }
.captions .item::after { content: " (" attr(data-caption) ")"; color: var(--soft); font-style: italic; }
#tip { position: fixed; z-index: 9; max-width: min(26rem, calc(100vw - 1.5rem)); background: var(--ink);
  color: var(--panel); padding: .4rem .6rem; border-radius: 6px; font-size: .8125rem; line-height: 1.4;
  pointer-events: none; overflow-wrap: anywhere; }
#tip[hidden] { display: none; }
@media (max-width: 30rem) {
  main { padding: 1rem .75rem 3rem; }
  table { font-size: .8125rem; }
  th, td { padding-right: .5rem; }
  td.long { min-width: 9rem; }
}
"""

SCRIPT = """
(function () {
  var rows = Array.prototype.slice.call(document.querySelectorAll("article[data-task]"));
  var task = document.getElementById("task"), mode = document.getElementById("mode");
  var shown = document.getElementById("shown"), tip = document.getElementById("tip");
  function filter() {
    var count = 0;
    rows.forEach(function (row) {
      var fits = (!task.value || row.dataset.task === task.value) && (!mode.value || row.dataset.mode === mode.value);
      row.hidden = !fits;
      count += fits;
    });
    shown.textContent = count + " of " + rows.length + " rows";
  }
  if (task) {
    document.querySelector(".controls").hidden = false;
    task.addEventListener("change", filter);
    mode.addEventListener("change", filter);
    document.getElementById("captions").addEventListener("change", function (event) {
      document.body.classList.toggle("captions", event.target.checked);
    });
    filter();
  }
  rows.forEach(function (row) {
    var text = row.querySelector(".text"), button = row.querySelector("button");
    if (text.scrollHeight <= text.clientHeight + 4) { return; }
    button.hidden = false;
    var mark = text.querySelector("mark");
    if (mark) { text.scrollTop += mark.getBoundingClientRect().top - text.getBoundingClientRect().top - 60; }
    button.addEventListener("click", function () {
      button.textContent = text.classList.toggle("open") ? "show less" : "show the whole row";
    });
  });
  var current = null;
  function place() {
    if (!current) { tip.hidden = true; return; }
    tip.textContent = current.dataset.caption;
    tip.hidden = false;
    var item = current.getClientRects()[0], box = tip.getBoundingClientRect();
    var below = item.bottom + 6, above = item.top - box.height - 6;
    tip.style.left = Math.max(12, Math.min(item.left, window.innerWidth - box.width - 12)) + "px";
    tip.style.top = (below + box.height > window.innerHeight && above > 0 ? above : below) + "px";
  }
  function show(event) {
    var focused = document.activeElement, over = event.target.closest ? event.target.closest(".item") : null;
    current = over || (event.type === "mouseover" && focused && focused.matches(".item") ? focused : null);
    place();
  }
  ["mouseover", "focusin", "click"].forEach(function (name) { document.addEventListener(name, show); });
  document.addEventListener("scroll", function () { if (current) { place(); } }, true);
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { current = null; place(); }
  });
})();
"""
