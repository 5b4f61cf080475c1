// Sends the token in a header, once; then a cookie replaces it. In the address it is behind the #, which browsers don't send.

const said = document.getElementById("said");

async function enter(token) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(token)); // headers hold bytes
  try {
    const answer = await fetch("session", { headers: { Authorization: `Bearer ${bytes}` }, cache: "no-store" });
    if (answer.ok) location.reload();
    else said.textContent = "That is not the token.";
  } catch {
    said.textContent = "The app does not answer.";
  }
}

const given = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);
if (given) enter(given);
document.getElementById("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(document.getElementById("token").value);
});
