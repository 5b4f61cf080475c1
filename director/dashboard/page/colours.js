// Which function has which colour, and the theme. Owner of both.

const NAMED = 6;
const names = new Map(); // name -> number, in order of appearance; numbers from NAMED on are "other"
let styles = null;

/** The CSS class of a function's colour; null is a run of several functions. */
export function colour(name) {
  if (name === null) return "mixed";
  if (!names.has(name) && names.size < 200) names.set(name, names.size);
  const number = names.get(name) ?? NAMED;
  return number < NAMED ? `c${number}` : "mixed";
}

/** The functions that have a colour of their own. */
export const coloured = () => [...names.keys()].slice(0, NAMED);

/** The value of a CSS colour, for canvases. */
export function paint(variable) {
  styles ??= getComputedStyle(document.documentElement);
  return styles.getPropertyValue(`--${variable}`).trim();
}

const CHOICES = ["auto", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");
let choice = CHOICES.includes(localStorage.getItem("director-theme")) ? localStorage.getItem("director-theme") : "auto";

/** Keep the button and the page at the theme; `changed` is called when colours have changed. */
export function mindTheme(button, changed) {
  const apply = () => {
    const theme = choice === "auto" ? (system.matches ? "dark" : "light") : choice;
    document.documentElement.dataset.theme = theme;
    button.textContent = choice[0].toUpperCase() + choice.slice(1);
    button.setAttribute("aria-label", `Colours: ${choice === "auto" ? "as the system has them" : choice}`);
    styles = null;
    changed();
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    localStorage.setItem("director-theme", choice);
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
