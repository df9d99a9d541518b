"""The words and the sentences of the pitches, as plain data: change them and see what a model makes of it.

Words that stand for the same symbol must not begin one another ("cat" and "cattle"): the test says so if they do.
All people and objects take a plain s, and all adjectives begin with a consonant, so that every sentence is grammatical.
Leaves out what is done with them (`pitches.py`). Read before: `grammar.py`.
"""


def _words(text: str) -> list[str]:
    return [" ".join(word.split()) for word in text.split(",")]


def _capital(word: str) -> str:
    return word[0].upper() + word[1:]


# Chosen once per scene and kept: whoever predicts the text must look back to know the name and the goods.
COMPANIES = [
    dict(zip(("name", "goods"), pair.split(": "), strict=True))
    for pair in _words("""
    Brolly: umbrellas, Crumb: toasters, Wick and Sons: candles, Hinge Labs: doors, Bristle: toothbrushes, Duvetly: blankets, Pocketful:
    trousers, Gnomad: garden gnomes, Fetchwise: dog leads, Bloomery: flower pots, Zipster: zips, Kettle One: kettles, Soleful: slippers,
    Mugshot: mugs, Tickwell: clocks, Sudsy: soap bars, Preserve Us: jam jars, Yarnival: mittens, Perch: chairs, Nestify: birdhouses,
    Rungs: ladders, Quilton: pillows, Forkcast: forks, Hoopla: earrings, Verdant: lawns, Jamboree: marmalades, Oarsome: rowing boats,
    Tweedledo: jackets, Echo Shed: sheds, Vase the Music: vases, Knotty: neckties, Unplugd: lamps, Whiskr: cat flaps, Dripfeed: taps,
    Gavel: hammers, Atlas Obscured: maps, Inkling: pens, Moptimist: mops, Rattle: prams, Stampede: stamps
    """)
]

ADJECTIVES = _words("""
    Baltic, bare, bashful, Belgian, bitter, blue, blunt, bold, bouncy, brave, brittle, bronze, burly, calm, Canadian, careful, charming,
    cheap, clumsy, common, cosy, coy, crisp, crooked, cross, curious, damp, daring, dim, dizzy, dopey, doubtful, drab, dramatic, dry,
    dull, dusty, faint, fair, famous, fancy, fearless, festive, fit, flat, fluffy, foggy, foreign, formal, fragile, frantic, French,
    frosty, frozen, fuzzy, gaunt, gentle, giddy, glad, gloomy, golden, greedy, green, grey, grim, gruff, grumpy, hairy, happy, hard,
    harsh, hasty, haunted, hoarse, hollow, huge, humble, hungry, hybrid, jaded, jolly, jumpy, keen, kind, lanky, late, lazy, leaky,
    lean, legal, limping, lively, local, lonely, lost, loud, lucky, lush, mad, mean, medieval, mellow, melting, messy, mild, misty,
    mobile, modest, moody, muddy, musical, nautical, neat, nervous, noble, nosy, numb, pale, part-time, patient, peppery, perky, petty,
    pink, pious, placid, plain, plastic, polite, poor, portable, posh, prickly, prim, private, proud, pure, purple, puzzled, quick,
    quiet, radical, rare, raw, remote, retired, rich, rigid, ripe, romantic, rotating, rough, round, royal, rude, runny, rural, rustic,
    rusty, sacred, sad, salty, sane, savvy, scented, secret, secular, senior, serious, shaky, sharp, shiny, short, shrill, shy, sick,
    silent, silver, sleepy, slow, sly, smart, smoky, smug, snug, sober, soft, soggy, solar, solemn, sore, sour, spare, spicy, spotty,
    spry, stale, stern, sticky, stiff, stout, strange, stray, strict, striped, stubborn, sturdy, subtle, suburban, sulky, surly,
    suspicious, sweet, swift, talented, tall, tame, tart, tender, tense, tepid, thin, thirsty, tidy, timid, tiny, tired, toxic, tragic,
    tropical, vague, vain, vast, vegan, velvet, vexed, Victorian, vintage, viral, virtual, vivid, warm, waxy, weak, wealthy, weary,
    weird, wet, whispering, wicked, wild, windy, wise, witty, wobbly, wooden, woolly, yawning, young, zany, zesty
    """)

PERSONS = _words("""
    acrobat, actor, admiral, archer, aunt, baker, banker, barber, bard, baron, beekeeper, bishop, blogger, boxer, bride, builder,
    butcher, butler, captain, cellist, chef, clown, colonel, cook, cop, cousin, critic, dad, dancer, dentist, diver, doctor, driver,
    druid, drummer, duke, editor, emperor, falconer, fan, farmer, felon, florist, gardener, gent, ghost, golfer, goth, grandmother,
    guard, guest, guru, gymnast, hacker, hairdresser, heir, hermit, hiker, host, imp, intern, janitor, jester, jeweller, jockey, joiner,
    judge, juggler, king, knight, lad, landlord, lawyer, librarian, lifeguard, locksmith, loner, lord, magician, maid, mayor, mime,
    miner, miser, model, monk, mum, narrator, neighbour, nephew, niece, ninja, novice, nun, nurse, ogre, organist, page, painter,
    parent, peer, pensioner, pianist, pilgrim, pilot, pirate, plumber, poet, potter, prince, printer, professor, queen, rebel, referee,
    rival, robot, rogue, roofer, rookie, rower, ruler, sailor, saint, scout, sculptor, senator, shepherd, singer, skater, smuggler,
    soldier, spy-hunter, squire, stranger, student, surfer, surgeon, swimmer, tailor, teacher, tenant, thug, tourist, trainee, tutor,
    twin, typist, umpire, uncle, usher, valet, vampire, vicar, viking, villain, violinist, volunteer, voter, waiter, weaver, welder,
    widow, wizard, wrestler, writer, yodeller, yogi, zookeeper
    """)

OBJECTS = _words("""
    accordion, acorn, album, anchor, apple, apron, axe, badge, bagel, balloon, banjo, barrel, basket, bean, bell, bib, bicycle, biscuit,
    blanket, bolt, bonnet, book, boot, bottle, bowl, broom, bucket, bun, button, cake, camera, cane, canoe, cap, card, carpet, carrot,
    cart, casserole, ceiling, cello, chart, cheese, cherub, chip, cloak, cloud, coconut, cog, comb, cone, cork, cot, crayon, crown,
    cucumber, cup, curtain, cushion, dip, doll, dome, doorbell, drawer, dream, drum, dumpling, email, engine, fern, fiddle, fig, flag,
    flute, fork, fossil, fridge, funnel, gadget, garlic, gate, gem, glove, gong, gown, grape, guitar, hammock, hat, hedge, helmet, hoe,
    hoop, hut, icicle, invoice, jar, jigsaw, jug, jumper, kayak, key, kite, knot, lake, lamp, lantern, lemon, letter, locket, log, lute,
    lyre, magnet, mango, mask, mat, medal, meeting, melon, mint, mirror, mitt, muffin, nail, napkin, needle, net, noodle, nut, oar, oat,
    olive, onion, opinion, oven, pancake, parcel, passport, password, pear, pebble, pepper, piano, pickle, pie, pigeon, pillow, pin,
    pipe, pizza, plate, plum, poem, prune, pudding, pumpkin, puppet, quilt, radio, rag, raisin, receipt, ribbon, ring, robe, rocket,
    rope, rug, rumour, saddle, sail, sandal, sauce, secret, shadow, shawl, shirt, shoe, shovel, signature, skirt, snack, sock, sofa,
    song, soup, spoon, stair, statue, stool, stove, suitcase, sundial, sword, teapot, telescope, tent, ticket, tie, tin, token, toy,
    tray, trumpet, tub, tulip, turnip, tuxedo, ukulele, urn, vegetable, vest, violin, waffle, wallet, walnut, weekend, wheel, whistle,
    wig, window, wreath, yacht, yam, yoghurt, yolk, zebra
    """)

ANIMALS = _words("""
    alpaca, badger, bear, beaver, camel, cat, chicken, cow, crab, crow, dachshund, donkey, duck, eel, ferret, flamingo, frog, gerbil,
    goat, goose, hamster, hedgehog, hen, heron, horse, iguana, lobster, magpie, mole, moose, moth, newt, octopus, otter, owl, panda,
    parrot, peacock, penguin, pony, puffin, rabbit, raccoon, seagull, seal, sheep, sloth, snail, spider, squid, stork, swan, tapir,
    toad, tortoise, vulture, walrus, wasp, weasel, wolf
    """)

# Done by several people to several objects: "dentists who <verb> carrots".
VERBS = _words("""
    admire, adore, alphabetise, auction, avoid, bake, bite, blame, bless, borrow, bribe, burn, bury, carve, chase, chew, collect, cook,
    count, crave, dislike, distrust, doubt, draw, dread, drop, dust, dye, eat, endure, envy, fax, fear, feed, film, fix, flatter, fold,
    follow, forget, forgive, frame, fry, glue, grow, guard, hate, heat, hide, hoard, hug, ignore, import, inherit, inspect, insult,
    invent, iron, judge, juggle, kick, knit, lend, lick, lose, love, mail, measure, mend, mispronounce, miss, mock, mourn, name, need,
    notice, obey, overcook, overwater, pack, paint, peel, photograph, pity, polish, postpone, praise, question, quote, rate, reheat,
    rent, repair, resent, respect, rinse, rob, salute, scold, sell, serenade, shake, shave, sketch, smell, sniff, spill, stack, steal,
    study, sue, swap, tax, tease, thank, throw, tickle, toss, trade, trim, trust, tune, understand, visit, wash, water, weigh, woo, wrap
    """)

# What we did to several objects: "we <did> nine lemons".
DEEDS = _words("""
    adopted, announced, apologised to, arrested, ate, auctioned, audited, baked, baptised, befriended, blamed, blessed, borrowed,
    bribed, buried, burnt, carried, carved, caught, chased, chewed, confused, cooked, counted, cursed, defeated, delivered, described,
    disappointed, disrupted, donated, doubted, drew, dried, dropped, dyed, embraced, envied, exported, faxed, fed, filmed, fined,
    flattened, followed, forgave, framed, fried, froze, glued, hated, hid, hired, hugged, hurled, ignored, insured, invented, ironed,
    judged, juggled, kissed, knitted, launched, lent, licensed, lit, lost, loved, mailed, married, measured, met, misread, missed,
    mocked, mopped, moved, nailed, named, outlived, outran, painted, patented, pickled, pitied, polished, prayed for, promoted, quoted,
    raced, rated, read, reheated, rented, rescued, sang to, saved, scared, shaved, shipped, sketched, sniffed, sold, spilled, spun,
    stacked, startled, stole, sued, swallowed, tamed, taught, taxed, tested, thanked, tickled, toasted, tossed, traded, trained, tuned,
    unwrapped, upgraded, vexed, washed, waxed, won, wooed, wrapped
    """)

# What we did to people.
GREETED = _words("""
    admired, applauded, befriended, blessed, charmed, confused, disappointed, envied, flattered, followed, forgave, hired, hugged,
    ignored, insured, met, missed, named, outlived, outran, painted, phoned, praised, promoted, quoted, rescued, sang to, saved,
    sketched, startled, sued, taught, thanked, tickled, trained, trusted
    """)

# What the product does to objects: "umbrellas that <does> lemons" (plural, so the same form as VERBS, but cleverer).
TRICKS = _words("""
    apologise to, applaud, attract, predict, boil, chill, classify, charge, decorate, detect, digitise, disrupt, dodge, encrypt,
    flatter, forgive, grow, hum to, knit, label, levitate, listen to, monetise, mop, outsmart, peel, perfume, quote, rank, recycle,
    refund, remember, rock, scan, scare, sing to, soothe, sort, spin, stream, summarise, sync with, toast, track, train, translate,
    unlock, whiten, whisper to, wink at
    """)

ADVERBS = _words("""
    aptly, badly, barely, boldly, bravely, briefly, calmly, carefully, cheaply, coldly, coyly, daily, deeply, dimly, dryly, duly,
    eagerly, early, fairly, finally, firmly, fondly, freely, gently, gladly, gravely, grimly, happily, hourly, humbly, idly, justly,
    kindly, lately, legally, lightly, loudly, madly, mainly, meekly, mildly, mostly, nearly, nicely, nightly, nobly, oddly, often,
    openly, partly, plainly, politely, proudly, purely, quietly, rarely, rashly, roundly, rudely, sadly, safely, sanely, secretly,
    seldom, silently, slowly, softly, sorely, sternly, stiffly, strangely, swiftly, tamely, tenderly, thinly, tightly, truly, twice,
    usually, vaguely, vainly, warmly, weakly, weekly, wildly, wisely, yearly
    """)

CITIES = _words("""
    Accra, Athens, Austin, Basel, Bath, Bergen, Berlin, Bilbao, Boston, Brno, Bruges, Cairo, Cardiff, Chicago, Cork, Dakar, Delft,
    Delhi, Denver, Derby, Dublin, Dundee, Espoo, Fez, Geneva, Ghent, Graz, Hanoi, Havana, Hull, Jena, Kigali, Krakow, Kyoto, Lagos,
    Leeds, Lima, Linz, Lisbon, Lodz, London, Lyon, Madrid, Malmo, Mumbai, Nairobi, Naples, Nice, Oslo, Osaka, Oulu, Oxford, Paris,
    Perth, Porto, Prague, Quito, Riga, Rome, Seoul, Seville, Sofia, Split, Tampere, Tirana, Tokyo, Toledo, Toronto, Trieste, Tunis,
    Turin, Utrecht, Venice, Vienna, Vilnius, Warsaw, York, Zagreb, Zurich
    """)

ROOMS = _words("""
    attic, bakery, ballroom, barn, basement, bathroom, boardroom, bunker, cafe, canteen, car park, castle, cellar, chapel, cinema,
    corridor, crypt, elevator, ferry, garage, greenhouse, gym, hangar, hotel, igloo, kitchen, laundry, library, lighthouse, lobby,
    museum, office, pantry, pub, rooftop, sauna, shed, stable, submarine, tavern, taxi, theatre, tower, tunnel, vault, warehouse,
    windmill, yurt
    """)

DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
TIMES = _words("""
    before breakfast, before coffee, at dawn, at dusk, at lunch, at midnight, at noon, after a storm, after the fire drill, in the rain,
    in the fog, in a power cut, too early, too late, off season, on the wrong floor, during a strike, during a nap, by candlelight,
    mid-sentence, near closing time, three espressos in
    """)
NUMBERS = _words("""
    two, three, four, five, seven, eight, nine, ten, eleven, twelve, thirty, fifty, a hundred, a dozen, several, countless
    """)
RELATIVES = _words("""
    mother, father, sister, brother, aunt, uncle, cousin, boss, dentist, neighbour, landlord, barber, therapist, flatmate, godmother,
    pen friend
    """)
METHODS = _words("""
    blockchain, machine learning, very long emails, a spreadsheet, two spreadsheets, string, hope, steam, gravity, guilt, a large
    language model, a small language model, one big if statement, seven microservices, a cron job, regular expressions, duct tape, good
    manners, a random forest, a whiteboard, fax, folklore, interns, tide tables, a hash map, a queue, recursion, a mutex, linear
    regression, backpropagation, a cache nobody dares to clear, a carrier pigeon
    """)
FAULTS = _words("""
    it overheats, it drips, it hums, it sulks, it gossips, it bites, it forgets, it rhymes, it drifts, it applauds itself, it wants a
    raise, it only works in caps, it needs a nap, it emails my mother, it fears stairs, it runs on goodwill, it reboots at noon, it
    thinks it is Tuesday, it segfaults politely, it has opinions, it cannot count to four, it deadlocks when watched, it leaks memory
    and feelings, it passes every test but one
    """)

MONTHS = _words("January, February, March, April, May, June, July, August, September, October, November, December")
PERIODS = _words("week, month, year, nap, lunch, full moon, sneeze, storm, visit")
# "Have you ever <done> the lemon", "nobody <does> lemons".
DONE = _words("""
    trusted, hugged, lost, ironed, envied, followed, sold, forgiven, married, chased, tuned, insulted, weighed, buried, baked, painted,
    framed, tickled, doubted, smuggled, thanked, licked, adopted, counted, scolded, rented, admired, outlived, mended, reheated
    """)
DOES = _words("""
    hugs, irons, weighs, sniffs, trusts, tunes, mends, paints, folds, chases, salutes, polishes, understands, bakes, counts, doubts,
    frames, guards, kicks, praises, rinses, scolds, tickles, wraps
    """)

RULES: dict[str, list[str | tuple[int, str]]] = {
    # ------------------------------------------------------------------------------------------------------ words
    "adj": [*ADJECTIVES],
    "adj_big": [_capital(word) for word in ADJECTIVES],
    "person": [*PERSONS],
    "people": [f"{word}s" for word in PERSONS],
    "people_big": [f"{_capital(word)}s" for word in PERSONS],
    "object": [*OBJECTS],
    "objects": [f"{word}s" for word in OBJECTS],
    "objects_big": [f"{_capital(word)}s" for word in OBJECTS],
    "animal": [*ANIMALS],
    "verb": [*VERBS],
    "did": [*DEEDS],
    "greeted": [*GREETED],
    "done": [*DONE],
    "does": [*DOES],
    "trick": [*TRICKS],
    "adverb": [*ADVERBS],
    "city": [*CITIES],
    "room": [*ROOMS],
    "day": [*DAYS],
    "month": [*MONTHS],
    "time": [*TIMES],
    "number": [*NUMBERS],
    "number_big": [_capital(word) for word in NUMBERS],
    "relative": [*RELATIVES],
    "method": [*METHODS],
    "fault": [*FAULTS],
    "period": [*PERIODS],
    "digit": [*"123456789"],
    # ---------------------------------------------------------------------------------------------------- phrases
    "money": [
        (5, "$<digit> million"),
        (3, "$<digit>00 thousand"),
        (2, "$<digit>.<digit> million"),
        "$<digit> billion",
        "<digit> dollars",
        "<number> <objects>",
    ],
    "share": ["<digit> percent", "<digit><digit> percent", "half", "a third", "a <adj> half"],
    "share_big": ["Half", "A third", "Most", "<digit><digit> percent", "Nearly all"],
    "folk": [(2, "<people>"), (6, "<adj> <people>"), (2, "<adj>, <adj> <people>"), "<city> <people>"],
    "folk_big": [(2, "<people_big>"), (5, "<adj_big> <people>"), (2, "<adj_big>, <adj> <people>"), "<number_big> <people>"],
    "things": [(2, "<objects>"), (6, "<adj> <objects>"), "<number> <adj> <objects>", (2, "<adj>, <adj> <objects>")],
    "thing": [(3, "the <adj> <object>"), (2, "a <adj> <object>"), "our <object>"],
    "beast": ["the <animal>", "the <adj> <animal>"],
    "someone": [
        (4, "a <adj> <person>"),
        (2, "the <adj> <person>"),
        "my <relative>",
        "my <adj> <relative>",
        "a <adj> <animal>",
        "some <person> in <city>",
    ],
    "someone_big": [(4, "A <adj> <person>"), (2, "The <adj> <person>"), "My <relative>", "My <adj> <relative>", "A <adj> <animal>"],
    "ware": [(4, "<adj> <goods>"), (3, "<adj>, <adj> <goods>"), "<object>-proof <goods>", "<object>-shaped <goods>", "<goods>"],
    # -------------------------------------------------------------- a remark: what people add when they should stop
    "remark": [
        (3, "<folk_big> <verb> <things>."),
        (2, "<folk_big> <adverb> <verb> <things>."),
        (2, "<folk_big> <verb> <things>, <folk> <verb> <things>."),
        "I <did> <things>, <things> and <things>.",
        "We <adverb> <did> <things>.",
        "My <adj> <relative> <did> <things> in <city>.",
        "In <city>, <folk> <verb> <things>.",
        "Last <month>, <someone> <did> <thing>.",
        "<someone_big> <adverb> <did> <things>.",
        "<objects_big>, <things> and <things>: we <did> them all.",
        "There are <folk> who <verb> <things>.",
        "<adj_big>, <adj>, <adj>: that is us.",
        "To <verb> <things> is to <verb> <things>.",
        "It is like <things>, only <adj>.",
        "When <folk> <verb> <things>, we <verb> <things>.",
        "Ask <someone> or <someone>.",
    ],
    # The end of a speech: most speakers cannot stop here.
    "close": [(3, "\n\n"), (5, " <remark>\n\n"), (2, " <remark> <remark>\n\n")],
    # -------------------------------------------------------------------------------------------------- the scene
    "scene": [(2, "NARRATOR:\n<heading> <entrance>\n\n<pitch><talk>"), "NARRATOR:\n<heading> <entrance>\n\n<pitch><aside><talk>"],
    "heading": [
        "<where>, <day>, <time>. <prop>",
        "<where>. <day>, <time>.",
        "<day>, <time>. <where>. <prop>",
        "<day> in <city>, <time>. <prop> <prop>",
    ],
    "where": [
        "A <adj> <room> in <city>",
        "A <adj>, <adj> <room> near <city>",
        "The <adj> <room> of <someone>",
        "Outside a <adj> <room>, <city>",
    ],
    "prop": [
        "The <adj> <object> does not work.",
        "It smells of <things> and <adj> <objects>.",
        "Nobody mentions <beast>.",
        "There are <number> <people> and one <adj> <object>.",
        "<someone_big> snores on <thing>.",
        "<number_big> <objects> hang from the <adj> ceiling.",
        "<someone_big> waters <things>.",
        "Somewhere, <someone> drops <thing>.",
        "The lights are <adj> and so is <someone>.",
        "Snacks: <things>, <things>, <things>.",
        "<folk_big> <verb> <things> in a corner.",
    ],
    # From here on the company is known.
    "entrance": ["Enter <name>.", "<name> is next.", "A sign: <name>.", "Applause for <name>!", "<did_big> by <someone>, enter <name>."],
    "did_big": ["Followed", "Ignored", "Admired", "Feared", "Chased", "Interrupted", "Envied", "Misunderstood"],
    # -------------------------------------------------------------------------------------------------- the pitch
    "pitch": [
        (3, "FOUNDER:\n<hook> <offer><close>"),
        "FOUNDER:\n<hello> <hook> <offer><close>",
        (2, "FOUNDER:\n<hook> <offer> <boast><close>"),
    ],
    "hello": [
        "Good morning.",
        "Good evening, <folk>.",
        "Thank you for coming.",
        "Please sit on the <adj> <objects>.",
        "Hello, <city>!",
        "I will be <adj>.",
        "I have <number> <adj> slides.",
    ],
    "hook": [
        "Picture a <adj> <person> with <things>.",
        "Every <day>, <folk> <verb> their <adj> <objects>.",
        "Why do <folk> still <verb> <things>?",
        "My <relative> once <did> <things>.",
        "Do you remember when <folk> <did> <things>?",
        "Once I <adverb> <did> <things> and felt <adj>.",
        "The world has <number> <adj> <objects> and no plan.",
        "As a child I <adverb> <did> <things>.",
        "Have you ever <done> <thing>?",
        "<someone_big> told me to <verb> <things>.",
        "Nobody needs more <adj> <objects>. Or <things>.",
        "Imagine <things>. Now imagine <things>.",
    ],
    "offer": [
        (3, "<name> makes <ware> for <folk>."),
        (3, "<name> makes <ware> for <folk> who <verb> <things>."),
        (2, "<name> makes <ware> that <trick> <things>."),
        (2, "So I founded <name>: <ware> for <folk>."),
        (2, "We are <name>, and our <adj> <goods> <trick> <things>."),
        "At <name> we rent <ware> to <folk> who <adverb> <verb> <things>.",
        "<name> is <goods>, but <adj> and <adj>.",
        "<name> turns <things> into <ware>.",
        "Think of <name> as a <adj> <object> full of <adj> <goods>.",
        "With <name>, <folk> <verb> <ware> by <method>.",
        "<name> puts <things> where <folk> expect <goods>.",
    ],
    "boast": [
        "We have <number> users, and <folk> <verb> us.",
        "This <month> alone we <did> <money>.",
        "We are <adj> in <city> and <adj> in <city>.",
        "Even <someone> wept.",
        "We grow <digit><digit> percent a <period>.",
        "Nobody else is this <adj>, or this <adj>.",
        "All of it runs on <method> and <things>.",
        "I have already <done> <thing>.",
        "Our mission is to <verb> <things>.",
    ],
    # -------------------------------------------------- the talk: at most one question of each kind, in some order
    "talk": [
        (2, "<about_money><end>"),
        (2, "<about_work><end>"),
        (3, "<about_money><about_work><end>"),
        (2, "<about_work><about_money><end>"),
        (2, "<about_money><about_people><end>"),
        (2, "<about_people><about_work><end>"),
        (2, "<about_money><about_work><about_people><end>"),
        "<about_people><about_money><about_work><end>",
        "<about_work><about_people><about_money><end>",
    ],
    "about_money": ["<income>", "<market>", "<rivals>", "<price>"],
    "about_work": [(2, "<machine>"), "<team>", "<law>", "<design>"],
    "about_people": ["<customer>", "<risk>", "<plan>"],
    "income": [
        (4, "INVESTOR:\n<ask_income>\n\nFOUNDER:\n<tell_income><close>"),
        "INVESTOR:\n<ask_income>\n\nFOUNDER:\n<tell_income> Ask my accountant.\n\nACCOUNTANT:\n<sum><close>",
        "INVESTOR:\n<ask_income>\n\nACCOUNTANT:\n<sum> <sum>\n\n",
    ],
    "ask_income": [
        "How do you make money?",
        "Do <folk> pay for <goods>?",
        "And who pays for the <objects>?",
        "Where is the <adj> money?",
        "What does one of these cost a <adj> <person>?",
        "Tell me about revenue. Be <adj>.",
        "Would a <adj> <person> pay <money>?",
    ],
    "tell_income": [
        "The <goods> are free. The <adj> <objects> cost <money>.",
        "We charge <folk> <money> a <period>.",
        "First we <verb> <things>. Then <folk> <verb> us.",
        "<people_big> pay us to <verb> their <adj> <objects>.",
        "We sell <things> to <folk> and <verb> the rest.",
        "Advertising, mostly for <things>.",
        "Back in <city> we <did> <things>. That was <money>.",
        "We do not make money. We make <things>.",
        "Subscriptions. <folk_big> forget to cancel.",
    ],
    "sum": [
        "That is minus <money>.",
        "I have <done> the <adj> <objects> twice. It is still <money>.",
        "The <objects> are not <adj> enough to deduct.",
        "We have <number> <adj> <objects> left.",
        "On paper we are <adj>. It is <adj> paper.",
        "Somebody <did> the <adj> <object> fund.",
        "Under <objects> I see <money>, and under <objects> I see <things>.",
    ],
    "market": ["INVESTOR:\n<ask_market>\n\nFOUNDER:\n<tell_market><close>"],
    "ask_market": [
        "How large is the market?",
        "How many <folk> are there?",
        "Who would want <goods> in <city>?",
        "Is <city> ready for <ware>?",
        "Why now, in <month>?",
        "Are <folk> your market, or <folk>?",
    ],
    "tell_market": [
        "There are <number> <people> in <city> alone, and they <verb> <things>.",
        "Some <money>, if <folk> <verb> enough <objects>.",
        "Anyone with a <adj> <object>.",
        "We start with <folk>. Then <folk>. Then <city>.",
        "<share_big> of all <people> <verb> <things>.",
        "Since <month>, even <folk> <verb> <things>.",
        "Large, <adj> and full of <objects>.",
    ],
    "rivals": ["INVESTOR:\n<ask_rivals>\n\nFOUNDER:\n<tell_rivals><close>"],
    "ask_rivals": [
        "Who else does this?",
        "My <adj> <relative> already has <goods>.",
        "What stops <someone> from copying you?",
        "I saw <ware> in <city> last <month>.",
        "Is this not just <things>?",
        "A large company has <number> <people> on this.",
    ],
    "tell_rivals": [
        "They have <things>. We have a <adj> <animal>.",
        "Our <objects> are <adj>. Theirs <verb> <people>.",
        "They <did> our <adj> <object>. We <greeted> their <person>.",
        "We <adverb> <did> them in <month>.",
        "Only a <adj> <person> could build it twice.",
        "Nobody <does> <things> like <name>.",
        "We hold a patent on <things>.",
        "True, but theirs is not <adj>.",
        "<someone_big> tried. Now they sell <things>.",
    ],
    "price": [
        (2, "INVESTOR:\n<ask_price>\n\nFOUNDER:\n<tell_price><close>"),
        "INVESTOR:\n<ask_price>\n\nFOUNDER:\n<tell_price> Deal?\n\nINVESTOR:\n<haggle><close>",
    ],
    "ask_price": [
        "How much do you need?",
        "What are you asking for?",
        "And the valuation?",
        "So, how many <adj> <objects> do you want?",
        "What is a <adj> company like <name> worth?",
    ],
    "tell_price": [
        "We want <money> for <share>.",
        "I would take <money> and <things>.",
        "We value <name> at <money>, plus <beast>.",
        "Just <money>. We will <verb> it <adverb>.",
        "Enough to <verb> <things> until <month>.",
        "Make it <share> and bring <things>.",
    ],
    "haggle": [
        "I was thinking <money>.",
        "For <share> I could <verb> <thing>.",
        "My <adj> <relative> would say <money>.",
        "Throw in the <adj> <object>.",
        "You are <adj>. Say <money>, then.",
        "I once <greeted> <folk> for less.",
    ],
    "machine": [
        (4, "INVESTOR:\n<ask_machine>\n\nENGINEER:\n<tell_machine><close>"),
        (2, "INVESTOR:\n<ask_machine>\n\nENGINEER:\n<tell_machine> Also, <fault>.\n\nFOUNDER:\n<hush><close>"),
        "INVESTOR:\n<ask_machine>\n\nFOUNDER:\nYes.\n\nENGINEER:\nNo. <tell_machine><close>",
    ],
    "ask_machine": [
        "Does it work?",
        "How do the <goods> know?",
        "What is under the <adj> <object>?",
        "Can I see the <goods> <trick> something?",
        "Is that <ware>, or a <adj> <object>?",
        "Will it scale to <city>?",
        "Suppose a <adj> <person> drops one?",
        "Would it survive <folk>?",
    ],
    "tell_machine": [
        "It works in <city>. Elsewhere <fault>.",
        "It is <method> and <things>.",
        "In theory. In practice <fault>.",
        "We trained it on <things> and <method>.",
        "Mostly <method>. On <day> <fault>.",
        "Perhaps, unless you <verb> <thing>.",
        "There is <someone> inside.",
        "We <did> the bug. Now <fault>, and <fault>.",
        "The demo runs on <method>. The rest is <adj>.",
        "Only <folk> may touch the <adj> <object>.",
        "It has <number> parameters and they <verb> <folk>.",
        "The loss went down. Then <someone> <did> <thing>.",
        "Strictly speaking, it is a <adj> <object> with <objects>.",
    ],
    "hush": [
        "What they mean is: <adj>.",
        "Not in front of <beast>.",
        "That was <month>. We are <adj> now.",
        "We call that a feature. <folk_big> <verb> it.",
        "Think of it as <things>.",
        "<adj_big> engineers. You know how <folk> are.",
    ],
    "team": [
        (3, "INVESTOR:\n<ask_team>\n\nFOUNDER:\n<tell_team><close>"),
        "INVESTOR:\n<ask_team>\n\nFOUNDER:\n<tell_team> Say hello, intern.\n\nINTERN:\n<intern><close>",
    ],
    "ask_team": [
        "Who is on the team?",
        "Why you?",
        "Who are all these <adj> <people>?",
        "Have you ever <done> a company?",
        "Is that <someone>?",
    ],
    "tell_team": [
        "Two <adj> <people> and a <adj> <animal>.",
        "I was a <adj> <person> in <city>. I <did> <things>.",
        "Our engineer <did> <things> at <number> start-ups.",
        "<number_big> <people>. One is <adj>.",
        "We met in a <adj> <room> and <did> <things>.",
        "My <relative> handles the <objects>. I <adverb> handle my <relative>.",
        "We hire only <folk>.",
        "I sold my last company for <money>. It made <things>.",
    ],
    "intern": [
        "I am here for the <adj> <objects>.",
        "I <did> the slides.",
        "Somebody said there would be <things>.",
        "I have not been paid since <month>.",
        "Is it normal to <verb> <beast>?",
        "I think the <adj> <object> is on fire.",
        "They told me to <verb> <things>. So I <greeted> <folk>.",
    ],
    "law": ["INVESTOR:\n<ask_law>\n\nLAWYER:\n<tell_law>\n\n", "INVESTOR:\n<ask_law>\n\nLAWYER:\n<tell_law> <tell_law>\n\n"],
    "ask_law": [
        "Is it legal?",
        "What about privacy?",
        "May one <verb> <goods> in <city>?",
        "Are the <objects> safe for <folk>?",
        "Who owns the <adj> <objects>?",
        "Can <folk> sue?",
    ],
    "tell_law": [
        "In <city>, yes. In <city>, only on <day>.",
        "The <goods> are not, technically, <objects>.",
        "My clients deny the <adj> <object>.",
        "It is legal to <verb> <things>, if one is <adj>.",
        "We settled with <folk> for <money>.",
        "No <person> was harmed. <number_big> were <adj>.",
        "Let us call them <things> from now on.",
        "I <adverb> advise you to <verb> that question.",
        "Under the <adj> <object> act, <folk> may <verb> <objects>.",
    ],
    "design": ["INVESTOR:\n<ask_design>\n\nDESIGNER:\n<tell_design><close>"],
    "ask_design": [
        "Why so <adj>?",
        "What is the <adj> <object> for?",
        "Must the <goods> be <adj>?",
        "Where is the button?",
        "Could it be less <adj>?",
    ],
    "tell_design": [
        "I wanted <adj>, but <adj>.",
        "It should feel like <things> in <month>.",
        "We asked <folk>. They wanted <things>.",
        "The <object> is <adj>, so a <adj> <person> can <verb> it.",
        "The logo is a <adj> <animal> with <things>.",
        "Users <did> the <adj> <object>, so I <greeted> the users.",
        "Choose from <adj>, <adj> and <adj>.",
    ],
    "customer": [
        (3, "INVESTOR:\n<ask_customer>\n\nCUSTOMER:\n<tell_customer><close>"),
        "INVESTOR:\n<ask_customer>\n\nCUSTOMER:\n<tell_customer> May I go?\n\nFOUNDER:\n<spin><close>",
    ],
    "ask_customer": [
        "Do you have customers?",
        "And who are you?",
        "What do <folk> say?",
        "You there, with the <adj> <object>. Are you happy?",
        "Has <someone> used it?",
    ],
    "tell_customer": [
        "I am a <adj> <person>. I <verb> it <adverb>.",
        "Before <name> I had <things>. Now I am <adj>.",
        "My <goods> <greeted> my <adj> <relative>.",
        "It <did> my <adj> <objects>, so I gave it <number> stars.",
        "I wanted <things>. They sent <ware>.",
        "I only came in to <verb> <thing>.",
        "I would <verb> it to <folk>, but <fault>.",
        "Since <month> my <objects> are <adj> and <fault>.",
    ],
    "spin": [
        "You see? <adj_big>.",
        "We pay them in <things>.",
        "That one is <adj>.",
        "Our <people> are usually less <adj>.",
        "Even <folk> have <adj> days.",
    ],
    "risk": [(2, "INVESTOR:\n<ask_risk>\n\nFOUNDER:\n<tell_risk><close>"), "INVESTOR:\n<ask_risk>\n\nADVISER:\n<advice><close>"],
    "ask_risk": [
        "What could go wrong?",
        "And if <folk> stop wanting <goods>?",
        "Which <objects> keep you awake?",
        "Imagine it rains <things>.",
        "Suppose a <adj> <animal> gets in.",
    ],
    "tell_risk": [
        "Only <someone> with <things>.",
        "We sleep <adverb>, among <things>.",
        "Then we <verb> <things> in <city>.",
        "<people_big>. We do not talk about <people>.",
        "It happened in <month>. <number_big> <people> <greeted> us.",
        "Our <adj> <objects> run out in <month>.",
        "One <adj> review from a <adj> <person>.",
    ],
    "advice": [
        "Never <verb> <thing>.",
        "I told them to <verb> <things>. They <greeted> <beast>.",
        "In my day we <did> <things> and were <adj>.",
        "Every company is <adj> until it is <adj>.",
        "Pivot to <things>.",
        "<adj_big> <people> <verb> <things>. <adj_big> founders <verb> <things>.",
    ],
    "plan": ["INVESTOR:\n<ask_plan>\n\nFOUNDER:\n<tell_plan><close>"],
    "ask_plan": [
        "What is the plan?",
        "Where will you be in <number> years?",
        "How will you spend <money>?",
        "Tell me, what comes after <goods>?",
        "Can you reach <folk>?",
    ],
    "tell_plan": [
        "First <city>, then <city>, then <things>.",
        "We <verb> <number> <people> by <month>.",
        "Hire a <adj> <person>. Fire the <adj> one.",
        "In <month> we launch <things> for <folk>.",
        "Either we go public, or we go to <city>.",
        "Half goes into <things>, half into <method>.",
        "<folk_big> get a <adj> <object>. <folk_big> get <things>.",
        "A conference: <number> <people>, one <adj> <object>.",
    ],
    "aside": [
        "ENGINEER:\n<mutter><close>",
        "INTERN:\n<intern><close>",
        (2, "NARRATOR:\n<stage>\n\n"),
        "ADVISER:\n<advice><close>",
        "ACCOUNTANT:\n<sum><close>",
    ],
    "mutter": [
        "Technically, <fault>.",
        "I <adverb> said no to the <adj> <objects>.",
        "The tests are <adj>.",
        "We should rewrite it in <things>.",
        "The log blames <someone>.",
        "That is not what <method> does.",
        "On my machine, <fault>.",
    ],
    "stage": [
        "A <adj>, <adj> silence.",
        "<someone_big> <did> <thing>.",
        "Somebody <adverb> folds <things>.",
        "Exit <beast>, <adj>.",
        "<folk_big> nod.",
        "The <adj> <object> falls on <someone>.",
        "Rain, then <things>.",
    ],
    # ---------------------------------------------------------------------------------------------------- the end
    "end": [(4, "<verdict>"), "<aside><verdict>"],
    "verdict": [
        (2, "INVESTOR:\n<yes><close>"),
        (2, "INVESTOR:\n<no><close>"),
        "INVESTOR:\n<yes> Well?\n\nFOUNDER:\n<joy><close>",
        "INVESTOR:\n<no> Any last words?\n\nFOUNDER:\n<grief><close>",
    ],
    "yes": [
        "I am in for <money>.",
        "You had me at <adj>. Here is <money>.",
        "My <adj> <relative> will hate this. I am in.",
        "I will give you <money> and <thing>.",
        "Take <money>, and <verb> <things>.",
        "I want <share> and <beast>.",
        "Fine. Have <money>, but <verb> <thing>.",
    ],
    "no": [
        "I am out. I <verb> <things>.",
        "It is too <adj> for me, and too <adj> for <folk>.",
        "I would sooner <verb> a <adj> <animal>.",
        "Come back with <things>.",
        "My <relative> <did> <goods> once. Never again.",
        "No. But I will buy the <adj> <object>.",
        "I invest only in <things>.",
    ],
    "joy": [
        "We will <verb> it all <adverb>.",
        "I could <verb> a <adj> <person>!",
        "Somebody tell my <adj> <relative>.",
        "Ring the <adj> bell!",
        "Release the <adj> <objects>!",
    ],
    "grief": [
        "Then we pivot to <things>.",
        "<city> will understand.",
        "Fine. I never liked <goods>.",
        "We still have <beast>.",
        "Come, <adj> <animal>. We are leaving.",
        "I will <verb> you <adverb>, and your <adj> <objects>.",
    ],
}
