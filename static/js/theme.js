// The theme, set before anything is painted. Loaded blocking; everything else of the page is in shell.js.
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // The profile's choice for who is signed in; before that, what this browser showed last.
  const choice = () => root.dataset.theme || localStorage.getItem("gatehouse.theme") || "system";

  const apply = () => {
    const shown = choice() === "system" ? (dark.matches ? "dark" : "light") : choice();
    root.setAttribute("data-bs-theme", shown);
    localStorage.setItem("gatehouse.theme", choice());
  };

  dark.addEventListener("change", apply);
  document.addEventListener("gatehouse:theme", (event) => {
    root.dataset.theme = event.detail;
    apply();
  });
  apply();
})();
