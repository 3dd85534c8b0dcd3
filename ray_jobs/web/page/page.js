// Talks to /api of this server alone. Whatever comes from there is put in as text, never as HTML.

const TYPING_MS = 250;
const RATING_MS = 400; // several stars that are tried in turn are one request
const FOUND = 12;
const REASONS = 3;
const BASE = {
  network: "what the movie itself says, with the mean rating",
  biases: "how the movie is rated in general",
  factors: "products of the user's and the movie's vectors",
};

const ORDERS = {
  choice: "what you will most likely choose",
  stars: "what you will rate highest",
  "stars+popularity": "what you will rate high and many have rated",
  lower_bound: "what you will surely rate high",
};

const byId = (id) => document.getElementById(id);
const own = new Map(); // movieId -> { movieId, title, rating }
let model = null;
let searching = null; // aborts the search under way
let recommending = null; // aborts the running request for recommendations
let waiting = 0; // timer of the next one
let liking = null; // aborts the running request for similar movies
let groups = 0; // radio buttons of one movie need a name of their own

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function tell(id, text, bad = false) {
  const status = byId(id);
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({})); // Serve's own refusals are text
  throw new Error(problem.detail || `The server answered with ${response.status}.`);
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

const LEVEL = 0.9;
const stars = (value) => `${value.toFixed(2)} stars`;
const interval = ({ level, low, high }) =>
  `${Math.round(level * 100)} %: ${low.toFixed(1)} to ${high.toFixed(1)}`;
const signed = (value, digits) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

// -- rating ---------------------------------------------------------------------------------------

function levels() {
  const first = Math.max(1, Math.ceil(model.ratingMin * 2));
  const last = Math.floor(model.ratingMax * 2);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) / 2);
}

function starControl(movie) {
  const group = `stars-${(groups += 1)}`;
  const count = Math.ceil(model.ratingMax);
  const row = (kind, textContent) => {
    const element = make("span", { className: `row ${kind}`, ariaHidden: "true" });
    element.append(...Array.from({ length: count }, () => make("i", { textContent })));
    return element;
  };
  const control = make("fieldset", { className: "stars" });
  control.append(make("legend", { textContent: `Your rating of ${movie.title}` }));
  control.append(row("none", "☆"), row("some", "★"));
  const show = (value) => control.style.setProperty("--shown", value);
  const current = () => own.get(movie.movieId)?.rating ?? 0;
  let from = 0;
  for (const value of levels()) {
    const input = make("input", { type: "radio", name: group, value: String(value) });
    input.ariaLabel = value === 1 ? "1 star" : `${value} stars`;
    input.checked = value === current();
    input.addEventListener("change", () => rate(movie, value));
    const half = make("label", { title: input.ariaLabel }, input);
    half.style.setProperty("--from", from);
    half.style.setProperty("--wide", value - from);
    half.addEventListener("pointerenter", () => show(value));
    control.append(half);
    from = value;
  }
  control.style.setProperty("--of", count);
  control.dataset.movieId = movie.movieId;
  control.addEventListener("pointerleave", () => show(current()));
  show(current());
  return control;
}

function rate(movie, rating) {
  own.set(movie.movieId, { movieId: movie.movieId, title: movie.title, rating });
  changed(`${movie.title}: ${rating} stars.`);
}

function remove(movie) {
  own.delete(movie.movieId);
  changed(`Your rating of ${movie.title} was removed.`);
  byId("own-heading").focus();
}

function changed(said) {
  keep();
  showOwn(said);
  recommending?.abort();
  clearTimeout(waiting);
  if (own.size) waiting = setTimeout(recommend, RATING_MS);
  else byId("best-section").hidden = true;
}

// Ratings stay in this browser, apart for each model. Where storage is refused, they end with the page.
const KEY = () => `ratings of ${model.dataset ?? "unknown data"}, ${model.name}`;

function keep() {
  try {
    if (own.size) localStorage.setItem(KEY(), JSON.stringify([...own.values()]));
    else localStorage.removeItem(KEY());
  } catch {
    // nothing is kept
  }
}

function kept() {
  try {
    const movies = JSON.parse(localStorage.getItem(KEY()) ?? "[]");
    return movies.filter(
      ({ movieId, title, rating }) =>
        Number.isInteger(movieId) && typeof title === "string" && levels().includes(rating),
    );
  } catch {
    return [];
  }
}

function showOwn(said) {
  const list = byId("own");
  // A row whose stars are being changed with the arrow keys must stay.
  if (!list.contains(document.activeElement) || document.activeElement.type !== "radio") {
    list.replaceChildren(...[...own.values()].map(ownRow));
  }
  for (const control of document.querySelectorAll(".stars")) {
    const rating = own.get(Number(control.dataset.movieId))?.rating ?? 0;
    control.style.setProperty("--shown", rating);
    for (const input of control.querySelectorAll("input")) {
      input.checked = Number(input.value) === rating;
    }
  }
  byId("recommend").disabled = byId("clear").disabled = own.size === 0;
  byId("bar-status").textContent = own.size === 1 ? "1 rating" : `${own.size} ratings`;
  tell("own-status", said || "Rate some movies that you know: the more, the better.");
}

function ownRow(movie) {
  const button = make("button", { type: "button", className: "small", textContent: "Remove" });
  button.ariaLabel = `Remove your rating of ${movie.title}`;
  button.addEventListener("click", () => remove(movie));
  return make("li", {}, movieLine(movie, starControl(movie), button));
}

// -- movies ---------------------------------------------------------------------------------------

function movieLine(movie, ...more) {
  const name = make("span", { className: "name", textContent: movie.title });
  return make("div", { className: "movie" }, name, ...more);
}

function likeButton(movie) {
  const button = make("button", { type: "button", className: "small", textContent: "Similar" });
  button.ariaLabel = `Movies similar to ${movie.title}`;
  button.addEventListener("click", () => showLike(movie));
  return button;
}

function foundRow(movie) {
  const count = movie.numRatings === 1 ? "1 rating" : `${movie.numRatings} ratings`;
  const facts = [movie.matched, ...movie.genres.filter((name) => name !== movie.matched)];
  const small = make("small", { textContent: count });
  const about = make("small", { className: "genres" });
  about.textContent = facts.filter(Boolean).slice(0, 4).join(" · ");
  const control = model.takesRatings ? [starControl(movie)] : [];
  return make("li", {}, movieLine(movie, about, small, ...control, likeButton(movie)));
}

function showFound(query, movies) {
  byId("results").dataset.query = query;
  byId("results").dataset.genre = byId("genre").value;
  byId("results").replaceChildren(...movies.map(foundRow));
}

async function search(query) {
  searching?.abort();
  const mine = (searching = new AbortController());
  const genre = byId("genre").value;
  const narrowed = genre ? `&genre=${encodeURIComponent(genre)}` : "";
  try {
    if (!query.trim()) {
      const path = `api/movies/popular?limit=${FOUND}${narrowed}`;
      showFound(query, (await ask(path, { signal: mine.signal })).movies);
      tell("search-status", genre ? `The most often rated of ${genre}:` : "The most often rated:");
      return;
    }
    const path = `api/movies?limit=${FOUND}&query=${encodeURIComponent(query)}${narrowed}`;
    const { movies } = await ask(path, { signal: mine.signal });
    showFound(query, movies);
    const count = movies.length === 1 ? "1 movie" : `${movies.length} movies`;
    if (!movies.length) tell("search-status", `Nothing is like “${query}”.`);
    else if (movies[0].close) tell("search-status", `No title has “${query}”; ${count} spelt like it:`);
    else tell("search-status", `${count} found${movies.length === FOUND ? ", the most often rated" : ""}.`);
  } catch (error) {
    if (mine.signal.aborted) return;
    showFound(query, []);
    tell("search-status", error.message, true);
  }
}

async function showLike(movie) {
  liking?.abort();
  const mine = (liking = new AbortController());
  byId("like-section").hidden = false;
  byId("like-heading").textContent = `Movies similar to ${movie.title}`;
  byId("like").replaceChildren();
  tell("like-status", "Looking …");
  try {
    const path = `api/movies/${movie.movieId}/similar?limit=10`;
    const { similar } = await ask(path, { signal: mine.signal });
    byId("like").replaceChildren(
      ...similar.map((other) => {
        const text = `similarity ${other.similarity.toFixed(2)}`;
        const number = make("span", { className: "number", textContent: text });
        const control = model.takesRatings ? [starControl(other)] : [];
        return make("li", {}, movieLine(other, number, ...control));
      }),
    );
    tell("like-status", "");
  } catch (error) {
    if (mine.signal.aborted) return;
    tell("like-status", error.message, true);
  }
  byId("like-heading").focus();
}

// -- recommendations ------------------------------------------------------------------------------

async function recommend() {
  recommending?.abort();
  clearTimeout(waiting);
  const mine = (recommending = new AbortController());
  byId("best-section").hidden = false;
  byId("best-section").ariaBusy = "true";
  if (!byId("best").children.length) tell("best-status", "Asking the model …");
  try {
    const ratings = [...own.values()].map(({ movieId, rating }) => ({ movieId, rating }));
    const order = byId("order").value;
    const explains = order === "choice" ? model.givesReasons : model.explainsStars;
    const reasons = explains ? REASONS : 0;
    const request = { ratings, n: 10, order, reasons, interval: LEVEL };
    const { recommendations } = await post("api/recommendations", request, mine.signal);
    byId("best").replaceChildren(...recommendations.map(bestRow));
    const rated = ratings.length === 1 ? "1 rating" : `${ratings.length} ratings`;
    const count = `${recommendations.length} movies, by your ${rated}`;
    tell("best-status", `${count}: first ${ORDERS[order]}.`);
  } catch (error) {
    if (mine.signal.aborted) return;
    byId("best").replaceChildren();
    tell("best-status", error.message, true);
  }
  byId("best-section").ariaBusy = "false";
}

function seeBest() {
  if (byId("best-section").hidden) recommend();
  byId("best-heading").scrollIntoView();
  byId("best-heading").focus({ preventScroll: true });
}

// The ratings that say most for a movie, in a sentence; nothing if none does.
function inWords(why) {
  const raised = why?.raised.slice(0, 2) ?? [];
  if (!raised.length) return [];
  const named = raised.map(({ title, rating }) => `${title} ${rating}`).join(" and ");
  return [make("p", { className: "why", textContent: `Because you gave ${named}.` })];
}

function bestRow(movie) {
  const numbers = [];
  if (movie.stars !== null) {
    numbers.push(make("span", { className: "number", textContent: stars(movie.stars) }));
  }
  if (movie.interval) {
    const title = "Of such ratings, this share is in the interval.";
    numbers.push(make("span", { className: "interval", textContent: interval(movie.interval), title }));
  }
  const row = make("li", {}, movieLine(movie, ...numbers, likeButton(movie)));
  row.append(...inWords(movie.choiceReasons ?? movie.reasons));
  const tables = [];
  if (movie.choiceReasons) tables.push(choiceReasons(movie.choiceReasons));
  if (movie.reasons) tables.push(starReasons(movie.reasons, movie.stars));
  if (tables.length) {
    row.append(make("details", {}, make("summary", { textContent: "Why?" }), ...tables));
  }
  return row;
}

function choiceReasons(why) {
  const base = [[why.context, "the time of your newest rating"]];
  return sum("Why you may choose it", base, why, why.score, "together, about 1 for a choice", 3);
}

function starReasons(why, shown) {
  const base = [...why.base, ...why.features].map((part) => [part.adds, BASE[part.name] ?? part.name]);
  const isClipped = shown !== null && shown.toFixed(2) !== why.prediction.toFixed(2);
  const unit = isClipped
    ? `together, in stars; shown as ${stars(shown)}, the end of the scale`
    : "together, in stars";
  return sum("Why these stars", base, why, why.prediction, unit, 2);
}

// A table of all that adds up to a number: the base, then what ratings add, the largest first.
function sum(caption, base, why, total, unit, digits) {
  const line = (adds, because, rated = "") =>
    make(
      "tr",
      {},
      make("td", { className: "adds", textContent: signed(adds, digits) }),
      make("td", { textContent: because }),
      make("td", { className: "adds", textContent: rated }),
    );
  const ofRating = (part) => line(part.adds, part.title, part.rating.toFixed(1));
  const head = make("tr", {});
  for (const [text, className] of [["adds", "adds"], ["because of", ""], ["rated", "adds"]]) {
    head.append(make("th", { scope: "col", textContent: text, className }));
  }
  const body = make("tbody", {}, ...base.map(([adds, because]) => line(adds, because)));
  body.append(...why.raised.map(ofRating));
  if (why.others.count) {
    const count = why.others.count === 1 ? "1 other rating" : `${why.others.count} other ratings`;
    body.append(line(why.others.adds, count));
  }
  body.append(...[...why.lowered].reverse().map(ofRating));
  const foot = make(
    "tr",
    {},
    make("td", { className: "adds", textContent: total.toFixed(digits) }),
    make("td", { textContent: unit }),
    make("td"),
  );
  const parts = [make("thead", {}, head), body, make("tfoot", {}, foot)];
  return make("table", {}, make("caption", { textContent: caption }), ...parts);
}

// -- the page -------------------------------------------------------------------------------------

function showModel() {
  const number = (value) => value.toLocaleString("en");
  byId("summary").textContent = model.takesRatings
    ? "Rate movies that you know, and see what the model recommends."
    : "This model cannot use the ratings of a new user without training, so there " +
      "are no recommendations here. Search for movies and see which are similar.";
  const facts = [
    ["Model", model.name],
    ["Data set", model.dataset ?? "not known"],
    ["Catalogue", `${number(model.numMovies)} movies, ${number(model.numUsers)} users`],
  ];
  if (model.test) {
    const { rmse, mae, numRatings } = model.test;
    const errors = `RMSE ${rmse.toFixed(3)}, MAE ${mae.toFixed(3)} stars`;
    facts.push(["Test errors", `${errors}, on ${number(numRatings)} ratings that were held out`]);
  }
  if (model.testRankings) {
    const { ndcg10, numUsers } = model.testRankings;
    facts.push(["Test rankings", `NDCG@10 ${ndcg10.toFixed(3)}, of ${number(numUsers)} users`]);
  }
  byId("about").replaceChildren(
    ...facts.flatMap(([name, text]) => [
      make("dt", { textContent: name }),
      make("dd", { textContent: text }),
    ]),
  );
  byId("notices").replaceChildren(...model.notices.map((textContent) => make("p", { textContent })));
  byId("own-section").hidden = byId("bar").hidden = !model.takesRatings;
  if (model.knowsPeople) {
    byId("query-label").textContent = "Words of a title, a director, an actor or a genre";
  }
  byId("genre").append(
    ...model.genres.map((value) => make("option", { value, textContent: value })),
  );
  byId("order-line").hidden = model.orders.length < 2;
  byId("order").replaceChildren(
    ...model.orders.map((value) => make("option", { value, textContent: ORDERS[value] })),
  );
}

function start() {
  let typing = 0;
  const query = byId("query");
  query.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => search(query.value), TYPING_MS);
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    search(query.value);
  });
  byId("genre").addEventListener("change", () => search(query.value));
  byId("recommend").addEventListener("click", seeBest);
  byId("order").addEventListener("change", () => {
    if (own.size) recommend();
  });
  byId("clear").addEventListener("click", () => {
    own.clear();
    changed("All ratings were removed.");
  });
  if (model.takesRatings) for (const movie of kept()) own.set(movie.movieId, movie);
  showOwn("");
  if (own.size) recommend();
  search("");
}

try {
  model = await ask("api/model");
  showModel();
  start();
} catch (error) {
  byId("summary").textContent = `The model cannot be asked: ${error.message}`;
}
