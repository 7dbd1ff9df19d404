"use strict";
// Shows the OpenAPI document of this control, and asks it what somebody types in. Text is only ever set as
// text: what a node calls itself cannot become markup here.

const METHODS = ["get", "put", "post", "delete", "patch"];
let whole = {};

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function resolve(part) {
  const path = part && part.$ref;
  if (!path) return part || {};
  return path.slice(2).split("/").reduce((at, key) => (at || {})[key], whole) || {};
}

// One line that says what a value is.
function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const choices = schema.oneOf || schema.anyOf || schema.allOf;
  if (choices) return choices.map(kind).join(schema.allOf ? " and " : " or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items || {})}`;
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || "any";
  const bounds = [];
  if ("minimum" in schema) bounds.push(`from ${schema.minimum}`);
  if ("maximum" in schema) bounds.push(`to ${schema.maximum}`);
  if (schema.pattern) bounds.push(`like ${schema.pattern}`);
  return [type, ...bounds].join(" ");
}

// Every field of a document, as deep as it goes.
function fields(schema, depth, seen) {
  const found = resolve(schema);
  if (schema.$ref && seen.includes(schema.$ref)) return null;
  const next = schema.$ref ? [...seen, schema.$ref] : seen;
  const parts = found.oneOf || found.anyOf || found.allOf;
  if (parts) return make("div", {}, ...parts.map((part) => fields(part, depth, next)).filter(Boolean));
  if (found.type === "array") return fields(found.items || {}, depth, next);
  if (!found.properties || depth > 6) return null;
  const rows = Object.entries(found.properties).map(([name, property]) => {
    const required = (found.required || []).includes(name);
    const about = property.description || resolve(property).description || "";
    const below = fields(property, depth + 1, next);
    const cell = make("td", {}, about);
    if (below) cell.append(make("div", { class: "schema" }, below));
    return make("tr", {}, make("td", {}, make("code", {}, name + (required ? "" : "?"))),
      make("td", {}, make("code", {}, kind(property))), cell);
  });
  return make("table", {}, ...rows);
}

function bodies(content) {
  return Object.entries(content || {}).map(([type, body]) => {
    const shown = body.schema && fields(body.schema, 0, []);
    const title = `${type}${body.schema ? `: ${kind(body.schema)}` : ""}`;
    return make("div", {}, make("code", {}, title), shown);
  });
}

function ask(method, path, parameters, hasBody) {
  const inputs = parameters.map((parameter) => {
    const input = make("input", { placeholder: parameter.name, "aria-label": parameter.name });
    return [parameter, input];
  });
  const body = hasBody ? make("textarea", { "aria-label": "body", placeholder: "{ }" }) : null;
  const answer = make("pre", { hidden: "" });
  const button = make("button", { type: "button" }, `${method.toUpperCase()} it`);
  button.addEventListener("click", async () => {
    let target = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") {
        target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      } else if (input.value !== "" && parameter.in === "query") {
        query.set(parameter.name, input.value);
      } else if (input.value !== "") {
        headers[parameter.name] = input.value;
      }
    }
    if (body) headers["Content-Type"] = "application/json";
    const said = query.toString();
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const response = await fetch(said ? `${target}?${said}` : target,
        { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
      let text = await response.text();
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON: as it is */ }
      answer.textContent = `${response.status} ${response.statusText}\n${text}`;
    } catch (error) {
      answer.textContent = `no answer: ${error}`;
    }
  });
  return make("div", {}, make("h3", {}, "Ask"), ...inputs.map(([, input]) => input), body, button, answer);
}

function operation(path, method, found) {
  const parameters = (found.parameters || []).map(resolve);
  const role = found["x-nautilus-role"] || "";
  const head = make("summary", {}, make("span", { class: "method" }, method.toUpperCase()),
    make("code", {}, path), make("span", { class: "what" }, found.summary || ""),
    make("span", { class: "role" }, role));
  const inside = make("div", {});
  const details = make("details", { "data-words": [path, method, role, found.summary, found.description]
    .join(" ").toLowerCase() }, head, inside);
  details.addEventListener("toggle", () => {
    if (inside.hasChildNodes()) return;
    if (found.description) inside.append(make("p", {}, found.description));
    if (parameters.length) {
      inside.append(make("h3", {}, "Parameters"), make("table", {}, ...parameters.map((parameter) =>
        make("tr", {}, make("td", {}, make("code", {}, parameter.name)), make("td", {}, parameter.in),
          make("td", {}, make("code", {}, kind(parameter.schema || {}))),
          make("td", {}, parameter.description || "")))));
    }
    if (found.requestBody) {
      inside.append(make("h3", {}, "Body"), ...bodies(resolve(found.requestBody).content));
    }
    inside.append(make("h3", {}, "Answers"), make("table", {}, ...Object.entries(found.responses || {})
      .map(([status, reference]) => {
        const response = resolve(reference);
        const problem = /^[45]/.test(status);
        return make("tr", {}, make("td", {}, make("code", {}, status)),
          make("td", {}, response.description || "", ...(problem ? [] : bodies(response.content))));
      })));
    inside.append(ask(method, path, parameters, Boolean(found.requestBody)));
  });
  return details;
}

function show() {
  const tags = new Map();
  for (const [path, item] of Object.entries(whole.paths)) {
    for (const method of METHODS.filter((method) => item[method])) {
      const tag = (item[method].tags || ["other"])[0];
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push(operation(path, method, item[method]));
    }
  }
  const sections = [...tags].sort(([a], [b]) => a.localeCompare(b)).map(([tag, operations]) =>
    make("section", {}, make("h2", {}, tag), ...operations));
  document.getElementById("operations").replaceChildren(...sections);
}

function filter(event) {
  const wanted = event.target.value.toLowerCase();
  for (const section of document.querySelectorAll("section")) {
    const operations = [...section.querySelectorAll("details")];
    for (const found of operations) found.hidden = !found.dataset.words.includes(wanted);
    section.hidden = operations.every((found) => found.hidden);
  }
}

async function start() {
  const about = document.getElementById("about");
  try {
    const response = await fetch("/api/v1/edge/openapi.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    whole = await response.json();
    about.textContent = whole.info.description;
    show();
    document.getElementById("filter").addEventListener("input", filter);
  } catch (error) {
    about.className = "wrong";
    about.textContent = `The document could not be read: ${error}`;
  }
}

start();
