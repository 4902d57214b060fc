"""Facts and words that validators compare with: elements, states, weekdays, makes of cars, verbs, colours.

The facts (chemical elements, states of the USA, makes and models of cars) are common knowledge, the verbs a list of
our own; colours are those of matplotlib (CSS and the xkcd survey, CC0). Knows nothing of tasks.
"""

from __future__ import annotations

from functools import cache


__all__ = ["CAR_MODELS", "ELEMENTS", "STATES", "VERBS", "WEEKDAYS", "colours", "gerund", "gerunds"]

_ELEMENTS = """
H Hydrogen|He Helium|Li Lithium|Be Beryllium|B Boron|C Carbon|N Nitrogen|O Oxygen|F Fluorine|Ne Neon|Na Sodium|
Mg Magnesium|Al Aluminum|Si Silicon|P Phosphorus|S Sulfur|Cl Chlorine|Ar Argon|K Potassium|Ca Calcium|Sc Scandium|
Ti Titanium|V Vanadium|Cr Chromium|Mn Manganese|Fe Iron|Co Cobalt|Ni Nickel|Cu Copper|Zn Zinc|Ga Gallium|
Ge Germanium|As Arsenic|Se Selenium|Br Bromine|Kr Krypton|Rb Rubidium|Sr Strontium|Y Yttrium|Zr Zirconium|Nb Niobium|
Mo Molybdenum|Tc Technetium|Ru Ruthenium|Rh Rhodium|Pd Palladium|Ag Silver|Cd Cadmium|In Indium|Sn Tin|Sb Antimony|
Te Tellurium|I Iodine|Xe Xenon|Cs Cesium|Ba Barium|La Lanthanum|Ce Cerium|Pr Praseodymium|Nd Neodymium|Pm Promethium|
Sm Samarium|Eu Europium|Gd Gadolinium|Tb Terbium|Dy Dysprosium|Ho Holmium|Er Erbium|Tm Thulium|Yb Ytterbium|
Lu Lutetium|Hf Hafnium|Ta Tantalum|W Tungsten|Re Rhenium|Os Osmium|Ir Iridium|Pt Platinum|Au Gold|Hg Mercury|
Tl Thallium|Pb Lead|Bi Bismuth|Po Polonium|At Astatine|Rn Radon|Fr Francium|Ra Radium|Ac Actinium|Th Thorium|
Pa Protactinium|U Uranium|Np Neptunium|Pu Plutonium|Am Americium|Cm Curium|Bk Berkelium|Cf Californium|Es Einsteinium|
Fm Fermium|Md Mendelevium|No Nobelium|Lr Lawrencium|Rf Rutherfordium|Db Dubnium|Sg Seaborgium|Bh Bohrium|Hs Hassium|
Mt Meitnerium|Ds Darmstadtium|Rg Roentgenium|Cn Copernicium|Nh Nihonium|Fl Flerovium|Mc Moscovium|Lv Livermorium|
Ts Tennessine|Og Oganesson
"""

_STATES = """
AL Alabama|AK Alaska|AZ Arizona|AR Arkansas|CA California|CO Colorado|CT Connecticut|DE Delaware|FL Florida|GA Georgia|
HI Hawaii|ID Idaho|IL Illinois|IN Indiana|IA Iowa|KS Kansas|KY Kentucky|LA Louisiana|ME Maine|MD Maryland|
MA Massachusetts|MI Michigan|MN Minnesota|MS Mississippi|MO Missouri|MT Montana|NE Nebraska|NV Nevada|NH New Hampshire|
NJ New Jersey|NM New Mexico|NY New York|NC North Carolina|ND North Dakota|OH Ohio|OK Oklahoma|OR Oregon|
PA Pennsylvania|RI Rhode Island|SC South Carolina|SD South Dakota|TN Tennessee|TX Texas|UT Utah|VT Vermont|VA Virginia|
WA Washington|WV West Virginia|WI Wisconsin|WY Wyoming
"""


def _table(text: str) -> dict[str, str]:
    return dict(row.strip().split(" ", 1) for row in text.split("|"))


ELEMENTS = _table(_ELEMENTS)
"""Names of the 118 chemical elements by their symbols, in order of atomic number, in American spelling."""
STATES = _table(_STATES)
"""Names of the 50 states of the USA by their postal abbreviations."""
WEEKDAYS = {
    "Mon": "Monday",
    "Tue": "Tuesday",
    "Wed": "Wednesday",
    "Thu": "Thursday",
    "Fri": "Friday",
    "Sat": "Saturday",
    "Sun": "Sunday",
}
"""Names of the days of the week by their abbreviations of three letters."""

_CARS = """
Acura: Integra, TLX, ILX, RLX, MDX, RDX, NSX, Legend
Alfa Romeo: Giulia, Stelvio, Tonale, 4C, Spider
Aston Martin: DB9, DB11, DBX, Vantage, Vanquish
Audi: A3, A4, A5, A6, A7, A8, Q3, Q5, Q7, Q8, R8, TT, S3, S4, S5, RS5, e-tron
Bentley: Continental, Continental GT, Bentayga, Flying Spur, Mulsanne
BMW: 3 Series, 5 Series, 7 Series, 328i, 330i, 335i, 528i, 530i, 740i, M2, M3, M4, M5, X1, X3, X5, X6, X7, Z3, Z4, i3, i4, i8
Buick: Century, LeSabre, Regal, LaCrosse, Enclave, Encore, Envision, Lucerne, Skylark
Cadillac: CTS, ATS, XTS, DeVille, Escalade, Eldorado, SRX, XT4, XT5, CT4, CT5
Chevrolet: Camaro, Corvette, Impala, Malibu, Cruze, Spark, Sonic, Equinox, Traverse, Tahoe, Suburban, Silverado, Silverado 1500, Colorado, Trax, Blazer, Bolt, Volt, Cobalt, Aveo, Cavalier
Chrysler: 200, 300, 300C, Pacifica, Sebring, PT Cruiser, Town & Country, Voyager
Dodge: Challenger, Charger, Viper, Durango, Journey, Caravan, Grand Caravan, Dart, Neon, Avenger, Ram
Ferrari: 458, 488, F40, F430, California, Enzo, Roma, Portofino, LaFerrari
Fiat: 500, 500X, Panda, Punto, Uno
Ford: Mustang, Focus, Fiesta, Fusion, Taurus, Escape, Explorer, Expedition, Edge, Bronco, Ranger, F-150, F-250, Maverick, Escort, Thunderbird, GT, Crown Victoria
Genesis: G70, G80, G90, GV70, GV80
GMC: Sierra, Sierra 1500, Yukon, Acadia, Terrain, Canyon, Envoy, Savana
Honda: Civic, Accord, Fit, Insight, CR-V, HR-V, Pilot, Passport, Odyssey, Ridgeline, Element, S2000, Prelude, Clarity
Hyundai: Elantra, Sonata, Accent, Veloster, Tucson, Santa Fe, Kona, Palisade, Venue, Ioniq, Azera, Genesis
Infiniti: G35, G37, Q50, Q60, QX50, QX60, QX80, FX35
Jaguar: XE, XF, XJ, XK, F-Type, F-Pace, E-Pace, I-Pace, E-Type
Jeep: Wrangler, Cherokee, Grand Cherokee, Compass, Patriot, Renegade, Gladiator, Liberty, Commander
Kia: Rio, Forte, Optima, K5, Stinger, Soul, Sportage, Sorento, Telluride, Seltos, Niro, Cadenza, Sedona, Carnival
Lamborghini: Aventador, Huracan, Gallardo, Urus, Murcielago, Diablo, Countach
Land Rover: Defender, Discovery, Range Rover, Range Rover Sport, Range Rover Evoque, Freelander
Lexus: ES, ES 350, GS, IS, IS 250, LS, LS 460, NX, RX, RX 350, GX, LX, LC, UX
Lincoln: Continental, MKZ, MKX, Navigator, Aviator, Corsair, Nautilus, Town Car
Lotus: Elise, Exige, Evora, Esprit
Maserati: Ghibli, Quattroporte, Levante, GranTurismo
Mazda: 2, 3, 5, 6, Mazda3, Mazda6, CX-3, CX-5, CX-9, CX-30, MX-5, MX-5 Miata, Miata, RX-7, RX-8, Protege, Tribute
McLaren: 570S, 650S, 720S, P1, F1, Senna
Mercedes-Benz: A-Class, C-Class, E-Class, S-Class, G-Class, CLA, CLS, GLA, GLC, GLE, GLS, SL, SLK, C300, E350, S500, S550, ML350
Mercury: Cougar, Grand Marquis, Mariner, Milan, Mountaineer, Sable
Mini: Cooper, Cooper S, Clubman, Countryman
Mitsubishi: Lancer, Galant, Eclipse, Mirage, Outlander, Outlander Sport, Montero, 3000GT
Nissan: Altima, Maxima, Sentra, Versa, Leaf, 350Z, 370Z, GT-R, Juke, Rogue, Murano, Pathfinder, Armada, Titan, Frontier, Kicks, Xterra, Quest, Cube
Oldsmobile: Alero, Aurora, Bravada, Cutlass, Intrigue
Plymouth: Breeze, Neon, Prowler, Voyager, Barracuda
Polestar: 1, 2, 3
Pontiac: Firebird, Grand Am, Grand Prix, G6, GTO, Vibe, Bonneville, Sunfire, Solstice
Porsche: 911, 918, Boxster, Cayman, Cayenne, Macan, Panamera, Taycan, 944, Carrera
Ram: 1500, 2500, 3500, ProMaster
Rolls-Royce: Phantom, Ghost, Wraith, Dawn, Cullinan
Saab: 9-3, 9-5, 900, 9000
Saturn: Ion, Vue, Sky, Aura, Outlook
Scion: tC, xA, xB, xD, FR-S, iQ
Smart: Fortwo
Subaru: Impreza, WRX, Legacy, Outback, Forester, Crosstrek, Ascent, BRZ, Baja, Tribeca
Suzuki: Swift, SX4, Grand Vitara, Kizashi, Jimny
Tesla: Model S, Model 3, Model X, Model Y, Roadster, Cybertruck
Toyota: Camry, Corolla, Prius, Avalon, Yaris, Matrix, Celica, Supra, 86, RAV4, Highlander, 4Runner, Sequoia, Land Cruiser, Tacoma, Tundra, Sienna, Venza, C-HR, MR2, Echo, FJ Cruiser
Volkswagen: Golf, GTI, Jetta, Passat, Beetle, CC, Tiguan, Touareg, Atlas, Arteon, ID.4, Polo, Eos, Rabbit
Volvo: S40, S60, S80, S90, V40, V60, V70, V90, C30, C70, XC40, XC60, XC70, XC90, 240, 850
"""  # noqa: E501

CAR_MODELS = {
    make: tuple(models.split(", ")) for make, models in (line.split(": ") for line in _CARS.strip().splitlines())
}
"""Models of cars sold in the USA, by make. Not every model: a rarer one counts as invalid."""

_VERBS = """
accept achieve act adapt add adjust admire advise agree aim allow analyze announce answer appear apply approach argue
arrange arrive ask assemble assist attend avoid bake balance bathe battle be become beg begin behave believe bend bet
bike bind blend bless blink bloom boil borrow bounce brainstorm break breathe brew build burn buy calculate call camp
care carry carve catch celebrate change chase chat cheat check cheer chew choose clap clarify clean climb close code
collect combine come comfort communicate compare compete complain complete compose compute concentrate conduct connect
consider construct contemplate continue control converse cook copy count cover craft crawl create cry cultivate cut
cycle dance dare dart daydream deal debate decide decorate defend deliver describe design destroy determine develop
dial dig dine discover discuss dive divide do doodle draft draw dream dress drift drink drive drop dry earn eat edit
eliminate embrace employ encourage end engage enjoy enter entertain escape evaluate examine exercise exist expand
expect explain explore express face fade fail fall fear feed feel fetch fight file fill film find finish fish fit fix
flee float flow fly focus fold follow forage forget forgive form freeze fry gallop gamble garden gather gaze generate
get giggle give glide glow go grab grieve grill grin grow guess guide hang happen harvest hate have heal hear help
hide hike hit hold hope hover hug hum hunt hurry hurt identify ignore imagine improve improvise include increase
inspect inspire install instruct invent invest invite iron itch jog join joke judge juggle jump keep kick kiss knead
kneel knit knock know label laugh launch lead leap learn leave lend let lie lift light like linger listen live load
lock look lose love make manage march mark marvel master match mean measure meditate meet melt mend mentor merge mix
model mop motivate mourn move mow muse name nap navigate need negotiate nod notice nurture obey observe offer open
operate order organize overcome own pack paint park participate pass pause pay perform persist persuade phone pick
pilot plan plant play plead polish ponder pour practice praise pray prepare present press pretend print process
produce program promise pronounce protect prove provide prune publish pull push question quit race rain raise reach
react read realize reason receive recite record recover recycle reflect refuse relax rely remain remember remind
remove renovate repair repeat replace reply report research resolve respond rest return review rhyme ride ring rise
roam roar roast roll row rub run rush sail save say scan scold scream sculpt search see seek seem select sell send
serve set settle sew shake shape share shave shine shiver shoot shop shout show shut sigh sign simmer sing sink sip
sit skate sketch ski skip skydive sleep slide slip smell smile sneeze snore snow snowboard soar socialize solve sort
speak speculate spell spend spill spin split spread sprint squeeze stack stand stare start stay steal steer stir stop
strategize stretch stroll struggle study succeed sunbathe surf surprise survive swallow sweat sweep swim swing
synthesize take talk tap taste teach tear tell tend test thank think thrive throw tickle tie tinker touch trace track
trade train transform translate travel treat try tumble turn twist type understand unite unpack upgrade use vacuum
visit visualize volunteer vote wait wake walk wander want warm warn wash waste watch water wave weave weep weigh
whisper whistle win wink wipe wish wonder work worry wrap wrestle write yawn yell yield zoom
"""
VERBS = tuple(_VERBS.split())
"""Common English verbs."""

_DOUBLED = """
beg bet chat clap cut dig dip drop fit get grab grin hit hug hum jog knit let mop nap nod plan program quit put rub
run scan set shop shut sip sit skip slip spin split stir stop swim tap win wrap begin forget control
"""
"""Verbs whose last letter is doubled before -ing."""


def gerund(verb: str) -> str:
    """Return the form of a verb on -ing, capitalised; right for the verbs of `VERBS`.

    Example:
        >>> [gerund(verb) for verb in ("run", "bake", "lie", "see", "play")]
        ['Running', 'Baking', 'Lying', 'Seeing', 'Playing']
    """
    if verb in _DOUBLED.split():
        stem = verb + verb[-1]
    elif verb.endswith("ie"):
        stem = verb[:-2] + "y"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")) and verb != "be":
        stem = verb[:-1]
    else:
        stem = verb
    return f"{stem}ing".capitalize()


@cache
def gerunds() -> frozenset[str]:
    """Return the forms on -ing of all `VERBS`, in lower case.

    Example:
        >>> "pondering" in gerunds(), "string" in gerunds()
        (True, False)
    """
    return frozenset(gerund(verb).lower() for verb in VERBS)


@cache
def colours() -> frozenset[str]:
    """Return about a thousand names of colours in lower case: matplotlib's, those of CSS without spaces.

    Example:
        >>> {"red", "dusty rose", "rebeccapurple"} <= colours(), "table" in colours()
        (True, False)
    """
    from matplotlib.colors import CSS4_COLORS, XKCD_COLORS

    return frozenset([*CSS4_COLORS, *(name.removeprefix("xkcd:") for name in XKCD_COLORS)])
