// Passkeys: a form with data-passkey asks the server for options, the browser for a credential,
// and sends it back. Without this file the form sends itself, and the page says what is missing.
"use strict";

const decode = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));

const encode = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");

const fields = [
  "attestationObject",
  "authenticatorData",
  "clientDataJSON",
  "signature",
  "userHandle",
];

async function post(path, form, members) {
  const answer = await fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": form.elements.csrf_token.value },
    body: JSON.stringify(members),
  });
  const body = await answer.json();
  if (!answer.ok) {
    throw new Error(body.error);
  }
  return body;
}

function readOptions(options) {
  options.challenge = decode(options.challenge);
  if (options.user) {
    options.user.id = decode(options.user.id);
  }
  for (const each of [...(options.allowCredentials ?? []), ...(options.excludeCredentials ?? [])]) {
    each.id = decode(each.id);
  }
  return options;
}

function writeCredential(credential) {
  const response = {};
  for (const name of fields) {
    const value = credential.response[name];
    if (value) {
      response[name] = encode(value);
    }
  }
  if (credential.response.getTransports) {
    response.transports = credential.response.getTransports();
  }
  return { id: credential.id, rawId: encode(credential.rawId), type: credential.type, response };
}

async function use(form) {
  const { begin, finish, passkey } = form.dataset;
  const publicKey = readOptions((await post(begin, form, {})).publicKey);
  const credential = await navigator.credentials[passkey]({ publicKey });
  const members = { credential: writeCredential(credential), next: form.elements.next?.value ?? "/" };
  if (form.elements.name) {
    members.name = form.elements.name.value;
  }
  window.location.assign((await post(finish, form, members)).next);
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const status = form.querySelector("[role=alert]");
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    status.textContent = "";
    button.disabled = true;
    try {
      if (!window.PublicKeyCredential) {
        throw new Error(form.dataset.unsupported);
      }
      await use(form);
    } catch (error) {
      // The browser's own errors are not in the language of the page.
      status.textContent = error instanceof DOMException ? form.dataset.cancelled : error.message;
    } finally {
      button.disabled = false;
    }
  });
}
