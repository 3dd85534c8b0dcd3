"""The page in a real browser, and the command as a user starts and stops it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import axe_core_python
import numpy as np
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ray_jobs.results.run import Workspace
from ray_jobs.web.about import describe
from ray_jobs.web.app import make_app
from tests.ray_jobs.made import CLOSED, FITTED, PLAIN, kept, recommender
from tests.ray_jobs.web.made_choices import CHOICE_METRICS, TIMED, kept_choices
from tests.support import left_after, running_module

pytestmark = pytest.mark.system

SECONDS = 60
HTML = '<img src=x onerror="document.title=1"> & Co. (1990)'
NAMES = {
    "network": "what the movie itself says, with the mean rating",
    "biases": "how the movie is rated in general",
}

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver: apt-get install chromium chromium-driver",
)


def with_html_in_a_title() -> Any:
    movies = FITTED.movies
    titles = (*movies.titles[:3], HTML, *movies.titles[4:])
    counts = np.array([2, 1, 3, 1, 4])  # movies with three are recommended
    return replace(FITTED, movies=replace(movies, titles=titles, train_counts=counts))


@dataclass(frozen=True)
class Page:
    """A browser that shows the page."""

    driver: webdriver.Chrome

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The element, as soon as it is there."""
        return self.until(lambda: self.all(selector))[0]

    def until(self, found: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, SECONDS).until(lambda _: found())

    def click(self, element: WebElement) -> None:
        """In the middle of the window: at its end the bar lies over it."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def search(self, query: str) -> None:
        """Type it, and wait for what it finds."""
        self.one("#about dt")
        self.one("#query").clear()
        self.one("#query").send_keys(query, Keys.ENTER)
        self.one(f"#results[data-query='{query}']")


@contextmanager
def browser(url: str, profile: Path, width: int = 360, *, dark: bool = False) -> Iterator[Page]:
    """Chromium at ``url``, with its window as wide as a telephone's if nothing else is said."""
    assert CHROMIUM
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        driver.get(url)
        yield Page(driver)
        # Neither a script's error nor anything that the security policy forbids.
        assert driver.get_log("browser") == []
        widths = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1]
    finally:
        driver.quit()


def signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def rows_of(page: Page, table: WebElement) -> list[str]:
    """Texts of a table of reasons, without its heading and its sum."""
    shown: list[str] = page.driver.execute_script(
        "return [...arguments[0].querySelectorAll('tbody tr')]"
        ".map((row) => row.innerText.replace(/\\s+/g, ' ').trim())",
        table,
    )
    return shown


def list_of_names(raised: list[dict[str, Any]]) -> str:
    return " and ".join(f"{part['title']} {part['rating']:g}" for part in raised[:2])


def recommend_by_hand(page: Page, url: str) -> None:
    """Search, rate three movies, which brings recommendations; all of it is what the API says."""
    page.search("toy")
    assert page.texts("#results .name") == ["Toy Story (1995)"]
    assert page.texts("#results small") == ["Comedy", "2 ratings"]
    half = page.one("#results input[value='4.5']")
    assert half.accessible_name == "4.5 stars"
    page.click(half)
    page.search("heat")
    page.click(page.one("#results input[value='1']"))
    page.search("img src")
    assert page.texts("#results .name") == [HTML]
    # With the keyboard: the arrow key chooses the next one.
    page.one("#results input[value='2.5']").send_keys(Keys.SPACE, Keys.ARROW_RIGHT)
    assert page.texts("#own .name") == ["Toy Story (1995)", "Heat (1995)", HTML]
    checked = [e.get_attribute("value") for e in page.all("#own input:checked")]
    assert checked == ["4.5", "1", "3"]

    page.until(lambda: "by your 3 ratings" in page.one("#best-status").text)
    ratings = [{"movieId": m, "rating": r} for m, r in ((1, 4.5), (6, 1), (30, 3))]
    request = {"ratings": ratings, "reasons": 3}
    best = posted(f"{url}/api/recommendations", request)["recommendations"]
    assert len(best) == 2
    assert page.texts("#best .name") == [row["title"] for row in best]
    assert page.texts("#best .number") == [f"{row['stars']:.2f} stars" for row in best]
    for row, summary in zip(best, page.all("#best summary"), strict=True):
        page.click(summary)
        why = row["reasons"]
        given = [*why["raised"], *reversed(why["lowered"])]
        assert len(given) == 3
        expected = [f"{signed(part['adds'])} {NAMES[part['name']]}" for part in why["base"]]
        expected += [f"{signed(p['adds'])} {p['title']} {p['rating']:.1f}" for p in given]
        (table,) = summary.find_elements(By.XPATH, "../table")
        assert rows_of(page, table) == expected

    because = [list_of_names(row["reasons"]["raised"]) for row in best]
    assert page.texts("#best .why") == [f"Because you gave {names}." for names in because if names]

    page.click(page.all("#own button")[1])
    assert page.texts("#own .name") == ["Toy Story (1995)", HTML]
    page.until(lambda: "by your 2 ratings" in page.one("#best-status").text)
    assert page.driver.title == "Movie recommendations"


def opened(url: str, **options: Any) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def posted(url: str, request: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    return json.loads(opened(url, data=json.dumps(request).encode(), headers=headers)[1])


@contextmanager
def served_here(workspace: Workspace) -> Iterator[str]:
    """The application in a thread of this process, at any port."""
    model = recommender(workspace)
    app = make_app(model, describe(workspace.run / "checkpoint", model))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


LATE_FIRST_ANSWER = """
const real = window.fetch;
const answer = new Promise((resolve) => { window.answerTheFirst = resolve; });
let first = true;
window.fetch = async (path, options) => {
  if (!first || !String(path).endsWith("/similar?limit=10")) return real(path, options);
  first = false;
  await answer;
  return real(path, options);
};
"""


def likes_of_two_at_once(page: Page) -> None:
    """Under the second movie's heading stays its list, though the first one's comes later."""
    page.search("1995")
    page.driver.execute_script(LATE_FIRST_ANSWER)
    for button in page.all("#results button"):
        page.click(button)
    page.one("#like li")
    shown = page.texts("#like-section")
    assert "Movies similar to Heat" in shown[0]
    # What is asked after the late answer comes after it.
    page.driver.execute_async_script(
        "const [done] = arguments; answerTheFirst();"
        "fetch('api/movies/1/similar').then((a) => a.json()).then(() => setTimeout(done, 0));"
    )
    assert page.texts("#like-section") == shown


@needs_browser
def test_a_model_that_takes_no_ratings_offers_what_it_can(tmp_path: Path) -> None:
    served = served_here(kept(tmp_path, PLAIN))
    with served as url, browser(url, tmp_path / "profile") as page:
        page.search("heat")
        assert "cannot use the ratings of a new user" in page.one("#summary").text
        assert page.all(".stars") == []
        assert not page.one("#own-section").is_displayed()
        page.click(page.one("#results button"))
        page.one("#like li")
        like = json.loads(opened(f"{url}/api/movies/6/similar")[1])["similar"]
        assert page.texts("#like .name") == [other["title"] for other in like]
        expected = [f"similarity {other['similarity']:.2f}" for other in like]
        assert page.texts("#like .number") == expected
        likes_of_two_at_once(page)
        page.search("fargoo")
        assert page.one("#search-status").text == "No title has “fargoo”; 1 movie spelt like it:"


def best_by(page: Page, url: str, order: str) -> list[dict[str, Any]]:
    """What the API recommends in this order, once the page shows it."""
    ratings = [{"movieId": 11, "rating": 5}, {"movieId": 201, "rating": 1}]
    request = {"ratings": ratings, "order": order, "reasons": 3}
    best: list[dict[str, Any]] = posted(f"{url}/api/recommendations", request)["recommendations"]
    page.until(lambda: page.texts("#best .name") == [row["title"] for row in best])
    return best


def reasons_of_choice(why: dict[str, Any]) -> list[str]:
    given = [*why["raised"], *reversed(why["lowered"])]
    return [
        f"{signed(why['context'], 3)} the time of your newest rating",
        *(f"{signed(p['adds'], 3)} {p['title']} {p['rating']:.1f}" for p in given),
    ]


def order_by_hand(page: Page, url: str) -> None:
    """Rate two movies; the page orders by choice, and then by stars."""
    for title, stars in (("Movie 1 ", "5"), ("Movie 20 ", "1")):
        page.search(title)
        page.click(page.one(f"#results input[value='{stars}']"))
    assert page.texts("#order option")[0] == "what you will most likely choose"
    best = best_by(page, url, "choice")
    assert "first what you will most likely choose" in page.one("#best-status").text
    assert page.texts("#best .number") == [f"{row['stars']:.2f} stars" for row in best]
    page.click(page.one("#best summary"))
    assert page.texts("#best details[open] caption") == ["Why you may choose it", "Why these stars"]
    table = page.one("#best details[open] table")
    assert rows_of(page, table) == reasons_of_choice(best[0]["choiceReasons"])
    total = table.find_element(By.CSS_SELECTOR, "tfoot .adds").text
    assert total == f"{best[0]['choiceReasons']['score']:.3f}"
    page.click(page.one("#order option[value='stars']"))
    by_stars = best_by(page, url, "stars")
    assert [row["movieId"] for row in by_stars] != [row["movieId"] for row in best]
    page.click(page.one("#best summary"))
    assert page.texts("#best details[open] caption") == ["Why these stars"]
    assert page.texts("#about dd")[-1] == "NDCG@10 0.310, of 9 users"


@needs_browser
def test_the_page_orders_by_choice_with_stars_and_reasons(tmp_path: Path) -> None:
    workspace = kept_choices(tmp_path, TIMED)
    workspace.paths.choice_metrics.write_json(CHOICE_METRICS)
    served = served_here(workspace)
    with served as url, browser(url, tmp_path / "profile") as page:
        order_by_hand(page, url)


@needs_browser
def test_without_a_rating_model_the_page_shows_no_stars(tmp_path: Path) -> None:
    served = served_here(kept_choices(tmp_path))
    with served as url, browser(url, tmp_path / "profile") as page:
        page.search("Movie 1 ")
        page.click(page.one("#results input[value='5']"))
        assert not page.one("#order-line").is_displayed()
        page.one("#best li")
        assert page.texts("#best .number") == []
        page.click(page.one("#best summary"))
        assert page.texts("#best details[open] caption") == ["Why you may choose it"]


AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
"""A program that finds what hinders people with disabilities: https://github.com/dequelabs/axe-core."""


def violations(page: Page) -> list[str]:
    page.driver.execute_script(AXE)
    found = page.driver.execute_async_script(
        "const [done] = arguments; axe.run().then((result) => done(result.violations"
        ".map((each) => `${each.id}: ${each.nodes.map((node) => node.html).join(' ')}`)));"
    )
    return list(found)


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1366, True)])
def test_the_page_opens_with_movies_to_rate_and_keeps_ratings(
    width: int, dark: bool, tmp_path: Path
) -> None:
    served = served_here(kept(tmp_path, CLOSED, with_html_in_a_title()))
    with served as url, browser(url, tmp_path / "profile", width, dark=dark) as page:
        page.one("#results li")
        # By the number of ratings.
        titles = ["Dune (1984)", "Seven, Eight (1990)", "Toy Story (1995)", "Heat (1995)", HTML]
        assert page.texts("#results .name") == titles
        assert page.texts("#results .genres")[1] == "Comedy · Drama"
        assert violations(page) == []

        page.click(page.one("#results li:nth-child(3) input[value='4.5']"))
        page.until(lambda: "by your 1 rating" in page.one("#best-status").text)
        assert page.one("#bar-status").text == "1 rating"
        assert all(text.startswith("Because you gave Toy Story") for text in page.texts(".why"))
        assert violations(page) == []
        sizes = page.driver.execute_script(
            "return [...document.querySelectorAll('.stars label, button, select, summary')]"
            ".map((each) => each.getBoundingClientRect())"
            ".filter((box) => box.width).map((box) => [box.width, box.height])"
        )
        assert min(min(size) for size in sizes) >= 24
        if width < 600:
            # The way to the recommendations is in reach from everywhere.
            for end in ("0", "document.body.scrollHeight"):
                page.driver.execute_script(f"scrollTo(0, {end})")
                top, bottom = page.driver.execute_script(
                    "const box = document.getElementById('recommend').getBoundingClientRect();"
                    "return [box.top, innerHeight - box.bottom]"
                )
                assert top >= 0
                assert bottom >= 0
        page.click(page.one("#recommend"))
        assert page.driver.switch_to.active_element.get_attribute("id") == "best-heading"

        page.driver.get(url)
        page.until(lambda: page.texts("#own .name") == ["Toy Story (1995)"])
        page.until(lambda: "by your 1 rating" in page.one("#best-status").text)
        page.click(page.one("#genre option[value='Drama']"))
        page.one("#results[data-genre='Drama']")
        assert page.texts("#results .name") == ["Seven, Eight (1990)", "Heat (1995)", HTML]
        page.search("comedy")
        assert page.texts("#results .name") == ["Seven, Eight (1990)"]
        page.click(page.one("#clear"))
        page.driver.get(url)
        page.one("#results li")
        assert page.texts("#own .name") == []
        assert not page.one("#best-section").is_displayed()


@pytest.mark.ray
def test_the_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    workspace = kept(tmp_path, CLOSED, with_html_in_a_title())
    settings = (f"storage={tmp_path}", "name=made", "ray.num_cpus=1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with running_module("ray_jobs.serve", settings, "--port", str(port)) as program:
        program.wait_for(f"serving at {url} until Ctrl-C")
        assert opened(f"{url}/api/health") == (200, b'{"status":"ok"}')
        assert opened(f"{url}/api/health", headers={"Host": "evil.example"})[0] == 400
        assert opened(f"{url}/api/movies/777/similar")[0] == 404
        found = posted(
            f"{url}/api/predictions",
            {"ratings": [{"movieId": 1, "rating": 4.5}], "movies": [40, 6]},
        )
        stars = [row["stars"] for row in found["predictions"]]
        assert stars == pytest.approx(
            recommender(workspace).fold_in([1], [4.5]).predict(0, [40, 6])
        )
        if CHROMIUM and DRIVER:
            with browser(url, tmp_path / "profile") as page:
                recommend_by_hand(page, url)
        program.process.send_signal(signal.SIGINT)
        said, _ = program.process.communicate(timeout=90)

        assert program.process.returncode == 130, said
        assert said.strip() == "error: interrupted; the page is no longer served"
        assert left_after(program.mark, 20) == {}
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=5)
