"""Every word of the page, in one table per language, and how a language writes numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Literal

Language = Literal["fr", "en"]

FRENCH = {
    "title": "Fruits\u202f!",
    "subtitle": "Des photos de fruits à leurs composantes principales",
    "notebook": "Notebook",
    "notebook_text": "Le traitement PySpark et la réduction de dimension, à lire et à exécuter.",
    "read_it": "À lire (HTML)",
    "run_it": "À exécuter (Jupyter)",
    "images": "Données",
    "images_text": "Une ligne par photo\u202f: chemin, étiquette et composantes principales.",
    "presentation": "Présentation",
    "presentation_text": "L'architecture, les choix techniques et les étapes de la chaîne.",
    "open_table": "À ouvrir (CSV)",
    "open_slides": "À projeter (PowerPoint)",
    "deliverables": "Les livrables",
    "checksums": "Pour vérifier tous les fichiers d'un coup, dans ce dossier\u202f:",
    "figures": "En chiffres",
    "photos": "photos",
    "classes": "classes",
    "rejected": "fichiers rejetés",
    "components": "composantes",
    "of_features": "sur {n} caractéristiques",
    "variance": "de la variance",
    "variance_on": "ajustée sur\u202f: {split}",
    "all_photos": "toutes les photos",
    "accuracy": "des photos de test reconnues",
    "accuracy_on": "par leur plus proche voisine, sur {n}",
    "region": "région",
    "local": "locale",
    "local_note": "un dossier, hors du cloud",
    "eu": "Union européenne",
    "versions": "Versions des données",
    "gallery": "Les photos, deux composantes à la fois",
    "gallery_text": "Chaque point est une photo. Deux photos voisines sur la carte se ressemblent "
    "sur les deux premières composantes\u202f; les plus proches voisines, elles, sont cherchées "
    "sur toutes.",
    "sampled": "{n} photos sur {of} sont montrées\u202f: un échantillon, réparti sur les classes "
    "et les partitions. Les voisines sont cherchées parmi elles.",
    "no_script": "La carte a besoin de JavaScript. Les livrables ci-dessus se lisent sans.",
    "no_data": "La carte n'a pas pu être lue\u202f: gallery.js doit se trouver à côté de cette "
    "page. Copiez le dossier en entier.",
    "search": "Chercher une étiquette",
    "search_hint": "par exemple {label}",
    "show_all": "Tout montrer",
    "thumbnails": "Vignettes sur la carte",
    "legend": "Légende",
    "legend_groups": "Les classes sont groupées par leur premier mot. Choisissez un groupe pour "
    "le mettre en avant.",
    "legend_classes": "Choisissez une classe pour la mettre en avant.",
    "matching": "{n} photos sur {of}",
    "no_match": "Aucune étiquette ne contient «\u202f{text}\u202f».",
    "unlabelled": "sans étiquette",
    "no_split": "sans partition",
    "map": "Carte des photos",
    "map_help": "Molette ou + et - pour zoomer, glisser ou Maj + flèches pour déplacer. Flèches "
    "pour passer à la photo voisine, Entrée pour la choisir, 0 pour tout voir, Échap pour "
    "désélectionner.",
    "controls": "Souris et clavier",
    "zoom_in": "Agrandir",
    "zoom_out": "Réduire",
    "fit": "Tout voir",
    "pan_left": "Vers la gauche",
    "pan_right": "Vers la droite",
    "pan_up": "Vers le haut",
    "pan_down": "Vers le bas",
    "axis": "Composante {n}",
    "axis_share": "Composante {n} ({share} de la variance)",
    "selected": "Photo choisie",
    "nothing_selected": "Choisissez une photo sur la carte, ou dans la liste plus bas\u202f: ses "
    "voisines apparaîtront ici.",
    "label": "Étiquette",
    "path": "Chemin",
    "split": "Partition",
    "training_same": "La plus proche photo d'entraînement a la même étiquette.",
    "training_other": "La plus proche photo d'entraînement a une autre étiquette\u202f: {label}.",
    "training_none": "Aucune autre photo d'entraînement à comparer.",
    "neighbours": "Plus proches voisines",
    "neighbours_text": "Sur toutes les composantes ({n}), de la plus proche à la plus lointaine.",
    "distance": "distance {n}",
    "same_label": "même étiquette",
    "other_label": "autre étiquette",
    "list": "Liste des photos",
    "list_text": "Les mêmes photos en tableau, filtrées par la recherche ci-dessus.",
    "thumbnail": "Vignette",
    "nearest_training": "Plus proche d'entraînement",
    "choose": "Choisir",
    "choose_photo": "Choisir {path}",
    "previous": "Précédentes",
    "next": "Suivantes",
    "page": "Photos {first} à {last} sur {of}",
    "scree": "Variance gardée par les composantes",
    "scree_text": "{k} composantes gardent {share} de la variance.",
    "scree_target": "Demandé\u202f: {target}.",
    "scree_x": "composantes",
    "scree_x_log": "composantes (échelle logarithmique)",
    "target": "demandé\u202f: {target}",
    "here": "{label}, {split}, {path}",
    "chosen": "Choisie\u202f: {label}, {split}, {path}. {training}",
}
ENGLISH = {
    "title": "Fruits!",
    "subtitle": "From photos of fruit to their principal components",
    "notebook": "Notebook",
    "notebook_text": "The PySpark processing and the reduction of dimensions, to read and to run.",
    "read_it": "To read (HTML)",
    "run_it": "To run (Jupyter)",
    "images": "Data",
    "images_text": "A row per photo: path, label and principal components.",
    "presentation": "Presentation",
    "presentation_text": "Architecture, technical choices and the steps of the chain.",
    "open_table": "To open (CSV)",
    "open_slides": "To show (PowerPoint)",
    "deliverables": "The deliverables",
    "checksums": "To verify all files at once, in this folder:",
    "figures": "In figures",
    "photos": "photos",
    "classes": "classes",
    "rejected": "files rejected",
    "components": "components",
    "of_features": "of {n} features",
    "variance": "of the variance",
    "variance_on": "fitted on: {split}",
    "all_photos": "all photos",
    "accuracy": "of the test photos recognised",
    "accuracy_on": "by their nearest neighbour, of {n}",
    "region": "region",
    "local": "local",
    "local_note": "a folder, outside the cloud",
    "eu": "European Union",
    "versions": "Versions of the data",
    "gallery": "The photos, two components at a time",
    "gallery_text": "Every point is a photo. Photos that are close on the map are alike on the "
    "first two components; the nearest neighbours are found on all of them.",
    "sampled": "{n} of {of} photos are shown: a sample of all classes and splits. Neighbours are "
    "found among these.",
    "no_script": "The map needs JavaScript. The deliverables above do not.",
    "no_data": "The map could not be read: gallery.js must lie beside this page. Copy the whole "
    "folder.",
    "search": "Find a label",
    "search_hint": "such as {label}",
    "show_all": "Show all",
    "thumbnails": "Thumbnails on the map",
    "legend": "Legend",
    "legend_groups": "Classes are grouped by their first word. Choose a group to highlight it.",
    "legend_classes": "Choose a class to highlight it.",
    "matching": "{n} of {of} photos",
    "no_match": "No label contains “{text}”.",
    "unlabelled": "unlabelled",
    "no_split": "no split",
    "map": "Map of the photos",
    "map_help": "Wheel, or + and -, to zoom; drag, or Shift + arrows, to pan. Arrows go to the "
    "next photo, Enter chooses it, 0 shows all, Escape unselects.",
    "controls": "Mouse and keyboard",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "fit": "Show all",
    "pan_left": "To the left",
    "pan_right": "To the right",
    "pan_up": "Up",
    "pan_down": "Down",
    "axis": "Component {n}",
    "axis_share": "Component {n} ({share} of the variance)",
    "selected": "Chosen photo",
    "nothing_selected": "Choose a photo on the map, or in the list below: its neighbours will be "
    "shown here.",
    "label": "Label",
    "path": "Path",
    "split": "Split",
    "training_same": "The nearest training photo has the same label.",
    "training_other": "The nearest training photo has another label: {label}.",
    "training_none": "There is no other training photo to compare with.",
    "neighbours": "Nearest neighbours",
    "neighbours_text": "On all components ({n}), the nearest first.",
    "distance": "distance {n}",
    "same_label": "same label",
    "other_label": "other label",
    "list": "List of the photos",
    "list_text": "The same photos as a table, filtered by the search above.",
    "thumbnail": "Thumbnail",
    "nearest_training": "Nearest training photo",
    "choose": "Choose",
    "choose_photo": "Choose {path}",
    "previous": "Previous",
    "next": "Next",
    "page": "Photos {first} to {last} of {of}",
    "scree": "Variance kept by the components",
    "scree_text": "{k} components keep {share} of the variance.",
    "scree_target": "Asked for: {target}.",
    "scree_x": "components",
    "scree_x_log": "components (logarithmic scale)",
    "target": "asked for: {target}",
    "here": "{label}, {split}, {path}",
    "chosen": "Chosen: {label}, {split}, {path}. {training}",
}
TEXTS: Mapping[Language, Mapping[str, str]] = {"fr": FRENCH, "en": ENGLISH}
MONTHS: Mapping[Language, tuple[str, ...]] = {
    "fr": (
        *("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août"),
        *("septembre", "octobre", "novembre", "décembre"),
    ),
    "en": (
        *("January", "February", "March", "April", "May", "June", "July", "August"),
        *("September", "October", "November", "December"),
    ),
}
_SEPARATORS: Mapping[Language, tuple[str, str]] = {"fr": ("\u202f", ","), "en": (",", ".")}
"""Separators of thousands and of decimals."""
_SIZES: Mapping[Language, tuple[str, ...]] = {
    "fr": ("octets", "ko", "Mo", "Go"),
    "en": ("bytes", "kB", "MB", "GB"),
}


def number(value: float, language: Language, *, digits: int = 0) -> str:
    """A number with so many decimals."""
    thousands, decimals = _SEPARATORS[language]
    return f"{value:,.{digits}f}".translate({ord(","): thousands, ord("."): decimals})


def percent(share: float, language: Language) -> str:
    """A share, 0 to 1, with one decimal."""
    space = "\u202f" if language == "fr" else ""
    return f"{number(100 * share, language, digits=1)}{space}%"


def size(count: int, language: Language) -> str:
    """A number of bytes, in powers of 1000."""
    power = min(3, (len(str(count)) - 1) // 3)
    value = number(count / 1000**power, language, digits=1 if power else 0)
    return f"{value}\u00a0{_SIZES[language][power]}"


def month(day: date, language: Language) -> str:
    """Month and year, in words."""
    return f"{MONTHS[language][day.month - 1]} {day.year}"
