"use strict";
// Without this script the page shows everything side by side, in the order of the data set.
(() => {
  const gallery = document.querySelector(".gallery");
  if (!gallery) return;
  const bar = document.querySelector(".bar");
  const cards = [...gallery.children];
  bar.hidden = false;

  const orders = {
    order: () => 0,
    highest: (a, b) => b.dataset.loss - a.dataset.loss,
    lowest: (a, b) => a.dataset.loss - b.dataset.loss,
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
  };
  document.querySelector("#sort").addEventListener("change", (event) => {
    gallery.append(...[...cards].sort(orders[event.target.value]));
  });

  const show = (pictures, next) => {
    const figures = [...pictures.children];
    const now = figures.findIndex((figure) => figure.classList.contains("shown"));
    figures.forEach((figure) => figure.classList.remove("shown"));
    figures[(now + next + figures.length) % figures.length].classList.add("shown");
  };
  const button = document.querySelector("#flip");
  button.addEventListener("click", () => {
    const flipping = gallery.classList.toggle("flipping");
    button.setAttribute("aria-pressed", flipping);
    for (const card of cards) {
      const pictures = card.querySelector(".pictures");
      pictures.tabIndex = flipping ? 0 : -1;
      [...pictures.children].forEach((figure, place) => figure.classList.toggle("shown", place === 0));
    }
  });
  gallery.addEventListener("click", (event) => {
    const pictures = event.target.closest(".flipping .pictures");
    if (pictures) show(pictures, 1);
  });
  gallery.addEventListener("keydown", (event) => {
    const pictures = event.target.closest(".flipping .pictures");
    const next = { " ": 1, Enter: 1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!pictures || !next) return;
    event.preventDefault();
    show(pictures, next);
  });
})();
