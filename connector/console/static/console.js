// What a page does by itself; without it everything still works, one load of the page at a time.
"use strict";

(() => {
  // A page that says how often it changes is fetched again and its content put in place of the old one.
  const busy = (main) =>
    document.hidden ||
    (document.activeElement && main.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) ||
    String(document.getSelection()).length > 0;

  async function refresh() {
    const main = document.getElementById("main");
    if (!main || !main.dataset.live) return;
    if (!busy(main)) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
        if (answer.status === 401 || answer.redirected) return location.reload();
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("main");
        if (answer.ok && fresh && !busy(main)) {
          const focused = document.activeElement && main.contains(document.activeElement) && document.activeElement.getAttribute("href");
          const open = [...main.querySelectorAll("details")].map((one) => one.open);
          main.replaceWith(document.adoptNode(fresh));
          [...fresh.querySelectorAll("details")].forEach((one, at) => { one.open = Boolean(open[at]); });
          if (focused) fresh.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
          const header = page.querySelector("body > header");
          if (header && !document.querySelector("body > header").contains(document.activeElement)) {
            document.querySelector("body > header").replaceWith(document.adoptNode(header));
          }
          zone();
          document.title = page.title;
          document.body.classList.remove("stale");
        }
      } catch {
        // The console is not reachable: what is shown is old, and says so.
        document.body.classList.add("stale");
      }
    }
    schedule();
  }

  function schedule() {
    const live = Number(document.getElementById("main")?.dataset.live);
    if (live) setTimeout(refresh, live * 1000);
  }

  // Times are UTC, as in the logs; on demand they are shown in the reader's own zone, which the browser remembers.
  function zone() {
    const local = localStorage.getItem("zone") === "local";
    const button = document.getElementById("zone");
    if (button) {
      button.hidden = false;
      button.textContent = local ? "UTC" : "Local time";
      button.setAttribute("aria-pressed", String(local));
    }
    for (const time of document.querySelectorAll("time.at")) {
      const at = new Date(time.dateTime);
      time.dataset.utc ??= time.textContent;
      if (!local || Number.isNaN(at.getTime())) { time.textContent = time.dataset.utc; continue; }
      const two = (number) => String(number).padStart(2, "0");
      const away = -at.getTimezoneOffset();
      const sign = `${away < 0 ? "-" : "+"}${two(Math.floor(Math.abs(away) / 60))}:${two(Math.abs(away) % 60)}`;
      const date = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
      const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two);
      const [whole, short] = [time.dataset.utc.length > 12, time.dataset.utc.length < 12];
      time.textContent = `${whole ? date : ""}${clock.slice(0, short ? 2 : 3).join(":")} ${sign}`;
    }
  }
  document.addEventListener("click", (event) => {
    if (event.target.id !== "zone") return;
    localStorage.setItem("zone", localStorage.getItem("zone") === "local" ? "utc" : "local");
    zone();
  });

  // One box ticks all of its table.
  document.addEventListener("change", (event) => {
    if (!(event.target instanceof HTMLInputElement) || !event.target.hasAttribute("data-all")) return;
    for (const box of event.target.closest("table").querySelectorAll("tbody input[type=checkbox]")) {
      box.checked = event.target.checked;
    }
  });

  // A filter that is chosen is applied at once.
  document.addEventListener("change", (event) => {
    if (event.target instanceof HTMLSelectElement) event.target.closest("form.filters")?.requestSubmit();
  });

  // A download that was confirmed begins without another click.
  document.querySelector("[data-go]")?.click();
  zone();
  schedule();
})();
