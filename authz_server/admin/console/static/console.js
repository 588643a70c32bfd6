"use strict";
// Sends a form once, and refreshes the screen "Now" while somebody looks at it. Every page is complete
// without this script.
(() => {
  const SENDING_MILLISECONDS = 30 * 1000;
  const IDLE_MILLISECONDS = 5 * 60 * 1000;
  let main = document.querySelector("main[data-refresh]");
  for (const field of document.querySelectorAll("input[data-select]")) {
    field.addEventListener("focus", () => field.select());
  }
  for (const form of document.querySelectorAll("form[method=post]")) {
    // The answer to a second sending, which would replace the first, has no secret.
    let sent = -Infinity;
    form.addEventListener("submit", (event) => {
      if (performance.now() - sent < SENDING_MILLISECONDS) event.preventDefault();
      else sent = performance.now();
    });
    addEventListener("pageshow", () => { sent = -Infinity; });
  }
  if (!main) return;
  let paused = false;
  let active = Date.now();
  for (const kind of ["pointermove", "keydown", "scroll"]) {
    // A page that is left open must not keep its session alive.
    addEventListener(kind, () => { active = Date.now(); }, { passive: true });
  }
  const showPause = () => {
    const button = main.querySelector("[data-pause]");
    if (!button) return;
    button.hidden = false;
    const words = [button.textContent, button.dataset.pause];
    const label = () => { button.textContent = words[paused ? 1 : 0]; };
    button.addEventListener("click", () => { paused = !paused; label(); });
    label();
  };
  const refresh = async () => {
    const holdsFocus = main !== document.activeElement && main.contains(document.activeElement);
    if (paused || holdsFocus || document.hidden || Date.now() - active > IDLE_MILLISECONDS) return;
    const answer = await fetch(location.href, { redirect: "error" });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.querySelector("main[data-refresh]");
    if (!next) return;
    main.replaceWith(next);
    main = next;
    showPause();
  };
  showPause();
  setInterval(() => refresh().catch(() => {}), Number(main.dataset.refresh) * 1000);
})();
