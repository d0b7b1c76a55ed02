"use strict";
// Sort and filter what is on the page already; without scripts the page shows everything, group by group.
const main = document.getElementById("main");
const sections = [...main.querySelectorAll("section")];
const articles = [...main.querySelectorAll("article")];
const homes = new Map(articles.map((article) => [article, article.parentElement]));
const flat = document.createElement("div");
flat.className = "flat";
const worst = document.getElementById("worst");
const status = document.getElementById("status");

function arrange() {
  if (worst.checked) {
    const confidence = (article) => Number(article.dataset.confidence);
    const sorted = [...articles].sort((a, b) => confidence(a) - confidence(b));
    flat.append(...sorted);
    main.prepend(flat);
  } else {
    for (const article of articles) homes.get(article).append(article);
    flat.remove();
  }
  for (const article of articles) article.hidden = Boolean(status.value) && article.dataset.status !== status.value;
  for (const section of sections) {
    section.hidden = worst.checked || !section.querySelector("article:not([hidden])");
  }
}

worst.addEventListener("change", arrange);
status.addEventListener("change", arrange);
// A link to an image or a group must work in every arrangement.
window.addEventListener("hashchange", () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.hidden || target.tagName === "SECTION") {
    worst.checked = false;
    status.value = "";
    arrange();
  }
  target.scrollIntoView();
});
document.getElementById("controls").hidden = false;
arrange(); // browsers keep the state of the controls over a reload
