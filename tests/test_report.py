"""The report: its numbers, whatever the names, and in a browser."""

import csv
import re
import shutil
from collections import Counter
from contextlib import chdir
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from programs import run
from samples import ODD

from stages import report
from thaw.data.dataset import Dataset
from thaw.evaluate.scores import score_predictions
from thaw.files.tables import write_table
from thaw.files.text import read_json, write_json
from thaw.prepare.pack import DUPLICATES
from thaw.prepare.pictures import COLUMNS
from thaw.report.ending import describe_end
from thaw.report.page import (
    MOST_ERRORS,
    cut_path,
    format_decimal,
    name_score,
    shorten_digest,
    show_errors,
)

FIELDS = ("path", "digest", "was", "now", "why")  # of corrections.csv

TABLES = [
    "metrics/predictions.csv",
    "plots/scores.csv",
    "plots/classes.csv",
    "data/prepared/test/index.csv",
]

BROWSER = next(
    filter(
        None,
        map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
    ),
    None,
)


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def list_all(self, tag: str, attribute: str) -> list[str]:
        return [
            attributes[attribute]
            for name, attributes in self.elements
            if tag in (name, "*") and attribute in attributes
        ]


def write_report(folder: Path) -> Path:
    """Runs stage report in this process, in that folder."""
    with chdir(folder):
        report.main()
    return folder / report.REPORT


def change_table(path: Path, change) -> None:
    """Has `change` change each row of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    write_table(path, list(rows[0]), (row.values() for row in rows))


def list_numbers(value, name: str = "") -> dict[str, float]:
    """The numbers in nested objects by their names with points."""
    if isinstance(value, dict):
        return {
            inner: number
            for key, item in value.items()
            for inner, number in list_numbers(
                item, f"{name}.{key}" if name else key
            ).items()
        }
    return {} if isinstance(value, str) else {name: value}


@pytest.fixture(scope="module")
def page(reproduced) -> Path:
    return reproduced.folder / report.REPORT


@pytest.fixture(scope="module")
def odd_page(reproduced, tmp_path_factory) -> Path:
    """An odd name, no test image classified right, and much in quarantine."""
    folder = tmp_path_factory.mktemp("odd") / "project"
    reproduced.copy(folder)
    classes = [ODD, "both", "down"]
    write_json(folder / "data/prepared/classes.json", classes)

    def rename(row):
        row.update({k: ODD for k, v in row.items() if v == "across"})

    def mistake(row):
        wrong = [name for name in classes if name != row["actual"]]
        row["finetuned"] = wrong[0]
        row["path"] = f"{ODD}/{row['path']}"

    for name in TABLES:
        change_table(folder / name, rename)
    change_table(folder / "metrics/predictions.csv", mistake)
    write_table(
        folder / "data/prepared/quarantine.csv",
        ["path", "class", "split", "reason"],
        [(f"{number}{ODD}", ODD, "", "broken") for number in range(57)],
    )
    write_table(
        folder / "data/prepared/duplicates.csv",
        DUPLICATES,
        [(ODD, "train", ODD, ODD, "test", ODD, "0.990", "kept")] * 7,
    )
    np.save(
        folder / "data/prepared/duplicates.npy",
        np.zeros((7, 2, 32, 32, 3), np.uint8),
    )
    write_table(
        folder / "data/prepared/pictures.csv",
        COLUMNS,
        [
            (kind, ODD, ODD, "train", row, f"{kind} for {row} reasons")
            for kind in ("dark", "blurred")
            for row in range(7)
        ],
    )
    details = read_json(folder / "metrics/details/prepare.json")
    details["pictures"]["dark"] = {"count": 1234, "share": 0.0625}
    write_json(folder / "metrics/details/prepare.json", details)
    return write_report(folder)


@pytest.fixture(scope="module")
def perfect_page(reproduced, tmp_path_factory) -> Path:
    """Sixty classes and not one error; nothing loads the model."""
    folder = tmp_path_factory.mktemp("perfect") / "project"
    reproduced.copy(folder)
    classes = [f"class {number}" for number in range(60)]
    write_json(folder / "data/prepared/classes.json", classes)
    (folder / "models/finetuned.keras").write_bytes(b"not read")
    write_table(
        folder / "metrics/predictions.csv",
        ["path", "actual", "head", "finetuned", "finetuned_calibrated"],
        [(f"{name}.jpg", name, classes[0], name, 0.9) for name in classes],
    )
    write_table(
        folder / "plots/scores.csv",
        ["model", "class", "precision", "recall", "f1", "images"],
        [
            (model, name, 0.5, 0.5, 0.01 * number, 1)
            for model in ("head", "finetuned")
            for number, name in reversed(list(enumerate(classes)))
        ],
    )
    write_table(
        folder / "plots/classes.csv",
        ["class", "split", "images"],
        [
            (name, split, 1)
            for split in ("train", "validation", "test")
            for name in classes
        ],
    )
    return write_report(folder)


@pytest.fixture(scope="module")
def plain_page(reproduced, tmp_path_factory) -> Path:
    """Names as they are in photographs, the head shipped, copies, errors."""
    folder = tmp_path_factory.mktemp("plain") / "project"
    reproduced.copy(folder)
    names = {
        "across": "dandelion",
        "both": "sunflowers",
        "down": "Arla-Medium-Fat-Milk",
    }
    write_json(folder / "data/prepared/classes.json", list(names.values()))
    image = "12240303_80d87f77a3_n.jpg"

    def rename(row):
        row.update({k: names[v] for k, v in row.items() if v in names})

    def mistake(row):
        row["finetuned"] = row["head"] = next(
            name for name in names.values() if name != row["actual"]
        )
        row["path"] = f"{row['actual']}/{image}"

    for name in TABLES:
        change_table(folder / name, rename)
    change_table(folder / "metrics/predictions.csv", mistake)
    path = f"sunflowers/{image}"
    write_table(
        folder / "data/prepared/duplicates.csv",
        DUPLICATES,
        [
            (
                path,
                "train",
                "sunflowers",
                path,
                "test",
                "tulips",
                "0.990",
                "kept",
            )
        ],
    )
    np.save(
        folder / "data/prepared/duplicates.npy",
        np.zeros((1, 2, 32, 32, 3), np.uint8),
    )
    write_table(
        folder / "data/prepared/quarantine.csv",
        ["path", "class", "split", "reason"],
        [(path, "sunflowers", "train", "cannot identify image file")],
    )
    details = folder / "metrics/details"
    evaluate = read_json(details / "evaluate.json")
    for key in ("gain_ci_low", "gain_ci_high", "gain_p_value"):
        del evaluate[key]
    evaluate["gain_verdict"] = "head shipped"
    write_json(details / "evaluate.json", evaluate)
    finetune = read_json(details / "finetune.json")
    write_json(
        details / "finetune.json",
        finetune | {"shipped": "head", "best_epoch": 0},
    )
    return write_report(folder)


@pytest.fixture(scope="module")
def doubtful_page(reproduced, tmp_path_factory) -> Path:
    """Two doubts, of odd paths; one has a correction."""
    folder = tmp_path_factory.mktemp("doubtful") / "project"
    reproduced.copy(folder)
    audit = folder / "metrics/audit.csv"
    with audit.open(encoding="utf-8", newline="") as file:
        first, second = list(csv.DictReader(file))[:2]
    first |= {"given": "both", "suggested": "down"}
    first |= {"given_probability": "0.03", "suggested_probability": "0.94"}
    odd = f'a, "b"\r\n{ODD}.jpg'
    for split in ("train", "validation", "test"):

        def rename(row):
            row["path"] = row["path"].replace(first["path"], odd)

        change_table(folder / f"data/prepared/{split}/index.csv", rename)
    write_table(
        audit,
        list(first),
        [{**first, "path": odd}.values(), second.values()],
    )
    write_table(
        folder / "corrections.csv",
        FIELDS,
        [
            ("x,y.jpg", "1f", "down", "exclude", 'said "no"'),
            (second["path"], second["id"], "the source's", "both", "seen"),
        ],
    )
    return write_report(folder)


def test_page_has_every_number_of_evaluate(page):
    evaluate = read_json(page.parent / "metrics/details/evaluate.json")
    shown = [
        (attributes["data-metric"], attributes["data-value"])
        for _, attributes in Page(page).elements
        if "data-metric" in attributes
    ]
    numbers = list_numbers(evaluate)
    assert dict.fromkeys(key for key, _ in shown).keys() == numbers.keys()
    for key, value in shown:
        assert float(value) == numbers[key]


def test_same_results_give_the_same_bytes(page, reproduced, tmp_path):
    again = write_report(reproduced.copy(tmp_path / "project").folder)
    assert again.read_bytes() == page.read_bytes()


def test_top_says_what_the_run_was_made_of(page):
    text = " ".join(Page(page).text.split())
    top = text[: text.index("Scores on the test images")]
    params = yaml.safe_load((page.parent / "params.yaml").read_text())
    digest = shorten_digest(page.parent / "models/finetuned.keras")
    lock = (page.parent / "dvc.lock").read_text()
    assert f"md5: {digest}" in lock and f"md5 {digest}" in top
    assert params["backbone"]["file"] in top
    assert "32 × 32 pixels" in top  # noqa: RUF001
    assert "data/raw: 30 images, 3 classes" in top
    assert "To try next: dvc exp run -S finetune.blocks=" in top
    assert "has seen printed characters only" in top


def test_a_shipped_head_is_compared_with_nothing(page, plain_page):
    before, text = Page(page).text, Page(plain_page).text
    for words in (
        *("Head alone, accuracy", "Is it real?", "p = ", "Fine-tuned"),
        *("only after fine-tuning", "head alone: right"),
    ):
        assert words in before or words == "head alone: right"
        assert words not in text
    assert "Head alone, shipped" in text
    assert "not kept" in text
    recalls = text[text.index("Scores of each class") :]
    assert "Recall, head alone" not in recalls


def test_page_needs_no_other_file(page, odd_page, perfect_page):
    for path in (page, odd_page, perfect_page):
        parsed = Page(path)
        assert parsed.list_all("script", "src") == []
        addresses = parsed.list_all("img", "src")
        addresses += parsed.list_all("link", "href")
        assert addresses
        assert all(address.startswith("data:") for address in addresses)
        text = path.read_text(encoding="utf-8")
        assert "@import" not in text
        assert "url(http" not in text


def test_pictures_that_stand_out_are_shown_with_the_reason(odd_page, page):
    parsed = Page(odd_page)
    text = " ".join(parsed.text.split())
    shown = text[text.index("Pictures that stand out Nothing was left out") :]
    assert "Dark 1,234 pictures, 6.2 % of all." in shown
    assert "The most blurred A rank" in shown
    for kind in ("dark", "blurred"):
        reasons = [f"{kind} for {row} reasons" in shown for row in range(7)]
        assert reasons == [True] * 6 + [False]
    images = parsed.list_all("img", "alt")
    assert images.count(f"An image of class {ODD}, dark") == 6
    # Photographs of stripes are of no kind; what sizes they have is said.
    assert "Pictures that stand out" not in Page(page).text
    assert "#pictures" not in Page(page).list_all("a", "href")
    assert "all larger than 32 px" in Page(page).text


def test_links_lead_to_sections_and_ids_are_unique(page, odd_page):
    for path in (page, odd_page):
        parsed = Page(path)
        ids = Counter(parsed.list_all("*", "id"))
        assert set(ids.values()) == {1}
        links = parsed.list_all("a", "href")
        links += parsed.list_all("use", "xlink:href")
        assert {link.removeprefix("#") for link in links} <= ids.keys()


def test_page_is_ordered_for_a_screen_reader(page):
    elements = Page(page).elements
    levels = [int(t[1]) for t, _ in elements if re.fullmatch("h[1-6]", t)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert ("html", {"lang": "en"}) in elements
    for tag, attributes in elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if attributes.get("role") in ("img", "region"):
            assert attributes["aria-label"]
    tags = Counter(tag for tag, _ in elements)
    assert tags["caption"] == tags["table"]


def test_odd_names_stay_text_and_worst_errors_come_first(odd_page):
    parsed = Page(odd_page)
    assert ODD in parsed.text
    assert f"A test image of class {ODD}" in parsed.list_all("img", "alt")
    with (odd_page.parent / "metrics/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda row: -float(row["finetuned_calibrated"]))
    rows = rows[:MOST_ERRORS]
    places = [parsed.text.index(row["path"]) for row in rows]
    assert places == sorted(places)
    pictures = [
        attributes
        for tag, attributes in parsed.elements
        if tag == "img" and attributes["src"].startswith("data:image/jpeg")
    ]
    doubts = [x for x in pictures if re.search("label|compar", x["alt"])]
    copies, standing_out = 2 * 7, 2 * 6
    shown = len(pictures) - len(doubts)
    assert shown == len(rows) + copies + standing_out
    more = len(rows) - 6
    assert f"{more} more error{'s' * (more > 1)}" in parsed.text or more < 1
    assert "1 more pair" in parsed.text


def test_long_lists_say_what_they_leave_out(page, odd_page):
    text = Page(odd_page).text
    assert "57 images, with the reason" in text
    assert "the first 50; 7 more in data/prepared/quarantine.csv" in text
    assert f"49{ODD}" in text
    assert f"50{ODD}" not in text
    assert "7 pairs, as a table" in text
    assert "Empty: every image could be read" in Page(page).text
    pictures = [
        [alt for alt in Page(path).list_all("img", "alt") if "copy" in alt]
        for path in (page, odd_page)
    ]
    assert list(map(len, pictures)) == [0, 7]


def test_many_classes_and_no_error(perfect_page):
    text = Page(perfect_page).text
    assert "There are none" in text
    assert "every test image is classified right" in text
    assert "35 more classes" in text
    weakest = text.index("Scores of each class")
    assert text.index("class 0", weakest) < text.index("class 1", weakest)
    assert "heat map" in perfect_page.read_text()


def test_next_step_depends_on_what_is_committed(tmp_path, monkeypatch):
    def write_lock(prepared, predictions):
        outs = [
            {"path": "data/prepared", "md5": prepared},
            {"path": "metrics/predictions.csv", "md5": predictions},
        ]
        lock = yaml.safe_dump({"stages": {"all": {"outs": outs}}})
        Path("dvc.lock").write_text(lock)

    def advise():
        return " ".join(describe_end("report.html", "It helped. " * 20, 2))

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        run("git", *identity, *arguments, cwd=tmp_path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_lock("old", "aabb")
    assert "git commit" in advise()
    git("init", "--quiet")
    git("add", "dvc.lock")
    git("commit", "--quiet", "-m", "results")
    assert "thaw plan -S finetune.blocks=2" in advise()
    write_lock("old", "ccdd")
    assert "git commit" in advise()  # with what is not at hand
    kept = tmp_path / ".dvc/cache/files/md5/aa/bb"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert "thaw compare HEAD" in advise()
    write_lock("new", "ccdd")
    assert "git commit" in advise()


def test_a_path_breaks_between_its_parts():
    assert cut_path("roses/122_80d_n.jpg") == [
        "roses/",
        "122_",
        "80d_",
        "n.jpg",
    ]
    assert cut_path("a b-c.png") == ["a ", "b-", "c.png"]
    assert cut_path("x" * 40 + ".jpg")[-1] == "x" * 8 + ".jpg"
    for odd in ("", "a/", "\n", "no suffix"):
        assert "".join(cut_path(odd)) == odd


@pytest.mark.parametrize(("size", "shown"), [(128, True), (96, False)])
def test_heat_is_shown_where_it_has_places(size, shown, tmp_path):
    write_json(tmp_path / "classes.json", ["a", "b"])
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        images = np.zeros((1, size, size, 3), np.uint8)
        np.save(tmp_path / split / "images.npy", images)
    heat = np.ones((1, size // 32, size // 32), np.float16)
    row = {"actual": "a", "finetuned": "b", "finetuned_calibrated": "0.9"}
    (error,) = show_errors([row], Dataset(tmp_path), heat)
    assert bool(error["heat"]) == shown


def test_small_numbers_do_not_become_zero():
    assert format_decimal(0.00012) == "0.00012"
    assert format_decimal(-0.25) == "\N{MINUS SIGN}0.250"
    assert format_decimal(0) == "0.000"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not BROWSER:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"]
        )
        yield started
        started.close()


def watch_page(shown) -> tuple[list[str], list[str]]:
    """Collects what a page logs, and the addresses that it requests."""
    said, asked = [], []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    return said, asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_the_page_fits_any_width(
    browser, width, scheme, page, odd_page, perfect_page, plain_page
):
    for path in (page, odd_page, perfect_page, plain_page):
        shown = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme
        )
        said, asked = watch_page(shown)
        shown.goto(path.as_uri())
        assert shown.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        )
        assert said == []
        assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
        shown.close()


# Words, numbers and ends of file names whose letters are on two lines.
BROKEN = """() => {
  const broken = [];
  document.querySelectorAll("details").forEach(d => d.open = true);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    for (const word of text.data.matchAll(/[\\p{L}\\p{N}.,]+/gu)) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      const boxes = [...range.getClientRects()];
      const lines = new Set(boxes.map(box => Math.round(box.top)));
      if (lines.size > 1) broken.push(word[0]);
    }
  }
  return broken;
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_no_word_is_broken_and_recall_is_visible(browser, width, plain_page):
    shown = browser.new_page(viewport={"width": width, "height": 844})
    shown.goto(plain_page.as_uri())
    assert shown.evaluate(BROKEN) == []
    box = shown.get_by_role("columnheader", name="Recall").bounding_box()
    assert box["x"] + box["width"] <= width
    top = shown.get_by_text("as dvc.lock has it").bounding_box()
    assert top["y"] < 844
    shown.close()


def test_errors_are_folded_behind_the_first_six(browser, odd_page):
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.goto(odd_page.as_uri())
    pictures = shown.get_by_alt_text(re.compile("^A test image"))
    seen = [one.is_visible() for one in pictures.all()]
    assert seen == [number < 6 for number in range(len(seen))]
    shown.close()


def test_corrections_are_downloaded(browser, doubtful_page, tmp_path):
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    said, asked = watch_page(shown)
    shown.goto(doubtful_page.as_uri())
    button = shown.get_by_role("button", name="Download corrections.csv")
    boxes = shown.get_by_label("wrong:").all()
    assert button.is_disabled() and len(boxes) == 2
    choices = shown.locator(".choice select").all()
    offered = choices[0].locator("option").all_text_contents()
    assert offered == ["down", "across", "exclude"]
    boxes[0].check()
    choices[1].select_option("exclude")  # ticks it
    assert shown.get_by_text("2 ticked").is_visible()
    with shown.expect_download() as waiting:
        button.click()
    assert waiting.value.suggested_filename == "corrections.csv"
    waiting.value.save_as(tmp_path / "corrections.csv")
    with (tmp_path / "corrections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    audit = doubtful_page.parent / "metrics/audit.csv"
    with audit.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(rows[0]) == FIELDS
    kept, changed, new = (tuple(row.values()) for row in rows)
    assert kept == ("x,y.jpg", "1f", "down", "exclude", 'said "no"')
    # A path has one line; the source's class stays.
    assert changed[:2] == (second["path"], second["id"])
    assert changed[2:4] == ("the source's", "exclude")
    why = "audit: 0.03 for both, 0.94 for down"
    assert new == (first["path"], first["id"], "both", "down", why)
    boxes[0].uncheck()
    boxes[1].uncheck()
    assert button.is_disabled() and said == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    shown.close()


def test_print_shows_what_is_folded(browser, page):
    shown = browser.new_page()
    shown.goto(page.as_uri())
    folded = shown.get_by_text("backbone.weights", exact=True)
    assert not folded.is_visible()
    shown.emulate_media(media="print", color_scheme="dark")
    assert folded.is_visible()
    background = shown.evaluate("getComputedStyle(document.body).background")
    assert "rgb(255, 255, 255)" in background
    shown.close()


def test_every_score_has_a_name():
    scores = score_predictions(np.eye(3), np.arange(3), 1.0, top_k=2)
    for key in {*scores, "top5"} - {"accuracy_ci_high"}:
        name, _, _ = name_score(key)
        assert name
    assert name_score("top5")[0] == "Top-5 accuracy"
    with pytest.raises(KeyError):
        name_score("topmost")
