// The colours of functions, as the app tells them, and the theme. Owner of both.

let numbers = {}; // by function
let styles = null;

/** Take the colours that the app gives to functions by their names: the same at each load, and in each browser. */
export function takeColours(known) {
  numbers = known.colours;
}

/** The CSS class of a function's colour; null is a run of several functions. */
export const colour = (name) => (name !== null && Object.hasOwn(numbers, name) ? `c${numbers[name]}` : "mixed");

/** The functions that have a colour. */
export const coloured = () => Object.keys(numbers).sort();

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
