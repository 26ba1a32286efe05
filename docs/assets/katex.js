// Renders the formulas that arithmatex marked, also after a page is loaded without a reload.
document$.subscribe(() => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const display = element.tagName === "DIV";
    const text = element.textContent.trim().replace(/^\\[([]/, "").replace(/\\[)\]]$/, "");
    katex.render(text, element, { displayMode: display, throwOnError: false });
  }
});
