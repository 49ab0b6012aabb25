// A form that answers with a file leaves the page where it is: let it be sent again after a moment.
(() => {
  "use strict";

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-download]")) return;
    window.setTimeout(() => {
      delete form.dataset.sent;
      form.removeAttribute("aria-busy");
    }, 2000);
  });
})();
