"""Labels from file names, checks of real data, and rendered plates."""

import os
from pathlib import Path

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")

import cv2  # noqa: E402

from plates import data, glyphs, render  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402
from plates.collage import Collage, _cell, flatten  # noqa: E402
from recognition import charsets  # noqa: E402

CCPD = "025-95_113-154&383_386&473-386&473_177&454_154&383_363&402-{}-37-15.jpg"


def write_image(path: Path, shape=(24, 94, 3), value=90) -> None:
    image = np.full(shape, value, np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def test_classes_are_places_and_the_blank_comes_last():
    assert len(PLATE_CHARACTERS) == 67
    classes = charsets.encode("皖A0ZO", PLATE_CHARACTERS, 7)
    np.testing.assert_array_equal(classes, [12, 41, 31, 64, 66, 0, 0])
    assert charsets.decode([12, 41, -1], PLATE_CHARACTERS) == "皖A"


def test_charset_file(tmp_path):
    file = tmp_path / "charset.txt"
    file.write_text("A\nB\nC D\n", encoding="utf-8")
    assert charsets.load_charset(file) == "ABCD"
    file.write_text("ABA", encoding="utf-8")
    with pytest.raises(SystemExit, match="more than once: A"):
        charsets.load_charset(file)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("皖A12345.jpg", "皖A12345"),
        ("皖A12345-2.jpg", "皖A12345"),
        ("x/皖A12345_night_3.png", "皖A12345"),
        # CCPD's province 0 is 皖, and its lists have neither I nor O.
        (CCPD.format("0_0_22_27_27_33_16"), "皖AY339S"),
        (CCPD.format("12_8_13_24_33_24_24"), "京JP0900"),
        (CCPD.format("1_1_3_24_25_26_27_28"), "沪BD01234"),
        (CCPD.format("31_0_24_24_24_24_24"), "警A00000"),
    ],
)
def test_label_from_name(name, label):
    assert data.label_from_name(name) == label


@pytest.mark.parametrize("places", ["0_0_22_27_27_33_34", "33_0_1_1_1_1_1", "0_24_1_1_1_1_1"])
def test_ccpd_indices_without_a_character(places):
    with pytest.raises(ValueError, match="no index"):
        data.label_from_name(CCPD.format(places))


def test_ccpd_photo_is_cut_to_its_box(tmp_path):
    photo = np.zeros((600, 500, 3), np.uint8)
    photo[383:473, 154:386] = 200
    file = tmp_path / CCPD.format("0_0_22_27_27_33_16")
    file.write_bytes(cv2.imencode(".png", photo)[1].tobytes())
    image = data.load_image(str(file))
    assert image.shape == (24, 94, 3)
    assert image.min() == 200


def test_check_names_every_bad_file(tmp_path, capsys):
    write_image(tmp_path / "皖A12345.png")
    write_image(tmp_path / "皖B67890-1.png", shape=(60, 200, 3))
    write_image(tmp_path / "皖A1ÄÖ45.png")
    write_image(tmp_path / "皖A1111111111.png")
    write_image(tmp_path / CCPD.format("99_0_0_0_0_0_0").replace(".jpg", ".png"))
    (tmp_path / "皖A54321.jpg").write_bytes(b"not an image")
    (tmp_path / "皖A55555.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image, no complaint")
    plates = data.load_plates([str(tmp_path)], PLATE_CHARACTERS)
    assert [p.text for p in plates] == ["皖A12345", "皖B67890"]
    assert all(p.image.shape == (24, 94, 3) for p in plates)
    complaints = capsys.readouterr().err
    assert "皖A1ÄÖ45.png: 皖A1ÄÖ45: not in the character set: Ä Ö" in complaints
    assert "needs 21 frames, with a blank per repeat; the model has 18" in complaints
    assert "皖A54321.jpg: unreadable image" in complaints
    assert "皖A55555.jpg: unreadable image" in complaints
    assert "no index 99" in complaints
    assert "2 plates, 5 files left out" in complaints
    assert "notes.txt" not in complaints


def test_nothing_usable_ends_the_program(tmp_path):
    with pytest.raises(SystemExit, match="not one image"):
        data.load_plates([str(tmp_path)], PLATE_CHARACTERS)
    with pytest.raises(SystemExit, match="no such file"):
        data.load_plates([os.path.join(tmp_path, "absent")], PLATE_CHARACTERS)


def test_rendered_plates_are_repeatable_and_plausible():
    first = data.rendered_plates(PLATE_CHARACTERS, 60, seed=1)
    again = data.rendered_plates(PLATE_CHARACTERS, 60, seed=1)
    np.testing.assert_array_equal(data.stack_images(first), data.stack_images(again), strict=True)
    assert {len(p.text) for p in first} == {7, 8}
    for plate in first:
        assert plate.text == plate.text.strip("IO")
        assert data.label_problem(plate.text, PLATE_CHARACTERS) is None
        assert plate.image.std() > 5  # there is something to see


def test_every_character_has_a_glyph():
    for variant in range(glyphs.VARIANTS):
        shapes = {glyphs.glyph(c, variant, 0).tobytes() for c in PLATE_CHARACTERS}
        # A font draws the same empty box for all characters that it does not have.
        assert len(shapes) == len(PLATE_CHARACTERS)


def test_a_stretched_glyph_is_another_of_the_same_size():
    plain, *others = (glyphs.glyph("皖", 1, warp) for warp in range(glyphs.WARPS))
    for other in others:
        assert other.shape == plain.shape
        assert np.abs(other.astype(int) - plain).mean() > 5
        coarse = [cv2.GaussianBlur(x, (0, 0), 4).ravel() for x in (other, plain)]
        assert np.corrcoef(*coarse)[0, 1] > 0.45
        # It still reaches the edges, or is a tenth of its height away from them.
        for edge in (other[:9], other[-9:], other[:, :4], other[:, -4:]):
            assert edge.max() > 200


def test_augmented_views_differ_and_repeat():
    plate = data.rendered_plates(PLATE_CHARACTERS, 1, seed=2)[0]
    one, two, again = (data.augment(np.random.default_rng(s), plate.image) for s in (0, 1, 0))
    assert one.shape == plate.image.shape
    assert one.dtype == np.uint8
    assert (one != two).any()
    np.testing.assert_array_equal(one, again)


@pytest.fixture(scope="module")
def collage() -> Collage:
    """Of five blue plates, and of one that is green, which is left out."""
    texts = "皖A12345", "沪B67890", "京CDEFGH", "粤JKLMNP", "苏QRSTUV", "沪BD67890"
    conditions = render.FAIR._replace(slant=0.3, slopes=(0.1,))
    rng = np.random.default_rng(1)
    return Collage([(render.render(rng, text, conditions), text) for text in texts])


def test_tilted_plates_are_found_and_seen_from_the_front(collage):
    assert len(collage.flat) >= 4
    for plate in collage.flat:
        ink = render.flat_ink(plate.text)
        light = plate.image.mean(-1)
        assert np.corrcoef(ink.ravel(), light.ravel())[0, 1] > 0.7
        # The other way round: the picture has the characters where the flat plate says.
        seen = cv2.warpPerspective(ink, plate.matrix, (94, 24))
        inside = cv2.warpPerspective(np.ones_like(ink), plate.matrix, (94, 24)) > 0.9
        assert np.corrcoef(seen[inside], plate.picture.mean(-1)[inside])[0, 1] > 0.7


def test_a_picture_without_a_plate_is_not_found():
    noise = np.random.default_rng(0).integers(0, 256, (24, 94, 3), np.uint8)
    assert flatten(noise, "皖A12345") is None
    assert flatten(np.zeros_like(noise), "皖A12345") is None


def test_a_collage_shows_what_it_says(collage):
    """Its characters look more like those of its text than like those of the plate below."""
    changed = 0
    for seed in range(40):
        picture, text = collage.draw(np.random.default_rng(seed))
        assert picture.shape == (24, 94, 3)
        assert picture.dtype == np.uint8
        assert data.label_problem(text, PLATE_CHARACTERS) is None
        again, same = collage.draw(np.random.default_rng(seed))
        np.testing.assert_array_equal(picture, again)
        assert text == same
        (base,) = [p for p in collage.flat if (p.picture == picture).mean() > 0.2]
        light = cv2.warpPerspective(
            picture, base.matrix, (220, 70), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        ).mean(-1)
        for place, (old, new) in enumerate(zip(base.text, text, strict=True)):
            if old == new:
                continue
            changed += 1
            cell = _cell(place)
            likeness = {
                c: np.corrcoef(
                    render.flat_ink(text[:place] + c + text[place + 1 :])[cell].ravel(),
                    light[cell].ravel(),
                )[0, 1]
                for c in (old, new)
            }
            assert likeness[new] > likeness[old], (seed, text, place)
    assert changed > 40


def test_plates_with_rare_characters_are_drawn_more_often():
    blank = np.zeros((24, 94, 3), np.uint8)
    plates = [data.Plate(blank, text, "") for text in ["皖A1111A"] * 15 + ["沪A1111A"]]
    batches = data.training_batches(PLATE_CHARACTERS, 400, 0, plates, real_share=1.0)
    province = next(batches)["labels"][:, 0]
    rare = np.mean(province == PLATE_CHARACTERS.index("沪"))
    assert 0.15 < rare < 0.27  # one in 16 plates, √15 times as often as evenly


def test_batches_continue_from_their_state():
    def batches():
        return data.training_batches(PLATE_CHARACTERS, 4, seed=3)

    straight, resumed = batches(), batches()
    next(straight)
    resumed.set_state(straight.get_state())
    expected, got = next(straight), next(resumed)
    assert expected["images"].shape == (4, 24, 94, 3)
    for name in expected:
        np.testing.assert_array_equal(expected[name], got[name], strict=True)
