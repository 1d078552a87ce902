// Keeps a page up to date: the server says that its subject changed, and the main part is fetched anew and put in place.
// Without this file, or where anything fails, the page is what it was when it was loaded.
"use strict";
(() => {
  const source = document.body.dataset.live;
  if (!source || !window.EventSource || !window.DOMParser) return;
  let mark = null;
  let busy = false;

  const swap = async () => {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (!answer.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = fresh.getElementById("main");
      const main = document.getElementById("main");
      if (!next || !main) return;
      const active = document.activeElement;
      if (active && main.contains(active) && active.matches("input, textarea, select")) return;
      const open = new Set([...main.querySelectorAll("details[open]")].map((each) => each.dataset.key));
      const at = active && main.contains(active) ? active.getAttribute("href") : null;
      next.querySelectorAll("details[data-key]").forEach((each) => { each.open = open.has(each.dataset.key); });
      main.replaceChildren(...next.childNodes);
      document.title = fresh.title;
      if (at) {
        const again = [...main.querySelectorAll("a[href]")].find((each) => each.getAttribute("href") === at);
        if (again) again.focus({ preventScroll: true });
      }
    } catch { /* the page stays as it is */ } finally {
      busy = false;
    }
  };

  const listen = () => {
    const stream = new EventSource(source);
    stream.addEventListener("subject", (event) => {
      if (mark !== null && mark !== event.data) swap();
      mark = event.data;
    });
    window.addEventListener("pagehide", () => stream.close());
  };
  listen();
})();
