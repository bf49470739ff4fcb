"""The words of the demo model's haiku: one block for each topic, every line written for this project.

The format is small enough to write poems in:

    # topic | other ways to ask for it | words that count as a mention
    1 first line (5 syllables)      2 second line (7)      3 third line (5)
    --                              a new scene: lines of two scenes are never mixed

`(still|slow|late)` is a choice; every choice of one line must give the same number of syllables, which
`haiku_grammar.parse` proves for every expansion with CMUdict. First lines set a scene, second lines are a
clause that stands on its own, third lines close: so any three lines of one scene read as one poem. Words
whose pronunciations differ much ("every", "fire", "hour", "our") are not used. A topic's heading must stay on
one line.
"""

TOPIC_LINES = """
# ice hockey | hockey, a hockey game, an ice hockey game, ice hockey players, pond hockey | ice, hockey
1 Ice hockey at (dusk|dawn|night|noon)
1 Ice hockey (again|outdoors|tonight)
1 A (small|cold|late|loud) hockey game
1 (Frozen pond|Saturday|Grandfather's) hockey
1 (Backyard|Midnight|Sunday|Village) ice hockey
1 The hockey ice (sings|hums|gleams|waits)
1 (Blue|White|Clean|Thin) ice, hockey (nets|sticks|skates|boots)
2 the (goalie|captain|rookie) taps both (posts|skates) (once|twice|first)
2 a (lost|black|swift) puck slides to the (dark|net|snow|moon)
2 (skates|blades) write (long|thin|quick) (names|lines|notes) in the (frost|cold|ice)
2 (someone|the wind|the crow|my dad) keeps score in the snow
2 a slap shot (rings|cracks|booms) off the (post|boards|glass)
2 breath hangs over the (blue line|red line|last play|whole rink)
2 the hockey crowd (forgets|defies) (frost|cold)
2 (sticks|skates) and (laughter|shouting|starlight) (cross|fill) the (rink|ice|pond)
3 (mittens|children|fathers|sparrows) count the goals
3 the (whole|cold|small) town (leans in|holds still|cheers on)
3 (snow|frost|steam) on the (helmets|benches|blue line|scoreboard)
3 the net (holds|keeps|saves) (the moon|its breath|one star)
3 the red lamp (says|sings|means) goal
3 one (tooth|glove|skate) left behind
3 and (no one|not one) goes home
3 then (cocoa|supper|blankets) and sleep

# moon | the moon, a full moon, moonlight, the new moon, moonrise, the night moon | moon
1 (Pale|Thin|Full|Late) moon on the (hill|lake|roof|road)
1 The moon (climbs|drifts|leans) (alone|tonight|again)
1 A (coin|cup|slice) of (white|cold|old) moon
1 (Moonlight|Half moon) on (water|branches|rooftops|linen)
1 Moon in the (puddle|window|teapot|branches|orchard)
1 (Harvest|Winter|Summer) moon (tonight|rising)
2 the moon (pours|spills|hands) out its (white|cold|thin) (milk|light)
2 a (fox|moth|child|cat) looks up and (forgets|stands still|says moon)
2 the (barn|pond|hill|lane) wears a (silver|moonlit|borrowed) coat
2 (owls|boats|clouds) go by and the moon (waits|stays|sleeps)
2 I leave the door for the moon
2 the (dogs|tides) have sung to the moon
3 the (dark|night|field) (glows|hums|turns) softly
3 so (far|round|bright), and so (near|kind|still)
3 the (night|tide|well) keeps its (face|light|shine)
3 (silver|shining|quiet) on (my hands|the snow|the gate)
3 who left the (light|lamp) on?
3 the clouds (close|draw) the (door|blinds)
3 a lamp for the (lost|late|owls|moths)

# rain | the rain, a rainy day, rainfall, summer rain, rainy weather | rain
1 Rain on the (window|tin roof|garden|old bridge|bus stop)
1 (Soft|Warm|Slow|Late) rain in the (leaves|street|night|pines)
1 All (day|night|week) long, the rain
1 The first (drops|notes) of rain
1 A (short|sweet|grey) (summer|April|evening|morning) rain
2 the rain (counts|strings|spills) its (silver|tiny|crystal) beads
2 umbrellas bloom in the (street|rain|square|lane)
2 the (gutter|rooftop|barrel) hums (its|a) rain song
2 a (snail|frog|child) takes the long way through
2 (puddles|windows) gather up the (sky|clouds|lights|rain)
2 somewhere a boy has no (coat|hat|plans)
2 rain knocks on the (door|pane) like (friends|guests)
3 (leaves|hats|roofs) drip in the (dark|sun|yard)
3 the whole (street|town|world) (shines|smells) (clean|new|green)
3 (tea|soup|sleep) and a (good|thick|long) book
3 and nobody (minds|runs|speaks)
3 one (leaf|bell|shoe) fills slowly
3 the garden drinks (deep|long)
3 then a (strip|patch) of blue

# snow | the snow, snowfall, first snow, a snowflake, a snowy day | snow
1 (First|Fresh|Deep|Soft) snow on the (gate|path|steps|pines)
1 Snow falls (on the town|on the sea|all night long)
1 (All night|Since dawn), (falling|drifting) snow
1 A (slow|small|thick) fall of snow
1 (Snowflakes|Soft snow) at the (door|pane|bridge)
2 (sparrows|rabbits|footprints) (cross|stitch) the (quiet|empty|open) page
2 the (bell|street|mill) wears a (coat|scarf) of snow
2 the (mailbox|scarecrow|signpost) wears its snow well
2 one (child|dog|crow) walks (out|forth) to taste snow
2 the (train|bus|mail) is late; no one minds
2 (the hills|the roofs) have put on one coat
3 the (world|day|road) starts over
3 (quiet|silence) by (the foot|the yard|the mile)
3 (boots|gloves|socks) dry by the stove
3 the (pines|reeds) bow (their heads|and wait)
3 even the (clocks|crows|dogs) hush
3 (soft|white) as a held breath
3 no two (flakes|thoughts) the same

# coffee | a cup of coffee, my morning coffee, espresso, black coffee | coffee
1 (First|Strong|Hot|Black) coffee at (dawn|six|work|home)
1 Steam from the coffee
1 (Morning|Monday) coffee (pours|waits|steams)
1 The coffee pot (hums|sighs|coughs)
1 One more (black|good|strong) coffee
1 A (blue|chipped|warm) coffee cup
2 a (spoon|clock|cup) chats to the (whole|still|blue) room
2 the smell of coffee (wakes|finds|calls) me
2 (steam|light) writes a (note|word|line) to the sun
2 my (thoughts|plans|hands) come home (one by one|two by two)
2 the kitchen fills with (sunlight|small talk|steam, then)
2 I am (no one|just fog) till (coffee|breakfast)
2 coffee rings (circle|mark all) my (hopes|chores|dreams|plans)
3 now the day (may|can) (start|come|speak)
3 the (world|code|sky) makes more sense
3 sip by sip, (I wake|the sun|I do)
3 (sugar|sunlight) at the (edge|brim|rim)
3 one more, then the (world|news|mail)
3 both (hands|eyes) (warm|wide) at last
3 no (cream|words|rush), but thank you

# tea | a cup of tea, green tea, the teapot, afternoon tea | tea
1 (Green|Black|Mint|Plum) tea in the (rain|shade|sun)
1 A (pot|cup) of (hot|green|strong) tea
1 The teapot (whistles|listens)
1 Tea leaves (turning round|waiting there|settling|unfolding)
1 (Late|Slow) afternoon tea
2 steam curls from the pot like (thought|sleep|dreams)
2 two (friends|aunts|ghosts) share tea and (silence|secrets)
2 honey (sinks|falls|melts) through the (hot|dark|gold) tea
2 (leaves|flecks) (gather|settle) and (spell|tell) my luck
2 the (clock|rain) waits its turn for (tea|cake|jam)
2 grandmother pours the tea (slow|last|first|high)
3 the (cup|pot) warms (my hands|the room|the talk)
3 there is no hurry
3 a (small|round|still) (sea|lake) of (calm|light)
3 (biscuits|petals) on a plate
3 nothing (else|more) to (say|want|mend)
3 the (storm|news|phone) can wait now

# cat | a cat, my cat, cats, the cat, a kitten, kittens | cat, kitten
1 A cat (on the sill|in the sun|in my chair|at the door)
1 The (grey|old|black|fat) cat (yawning|staring|waiting|napping)
1 Cat (hair on my desk|on my keyboard|in the flowers)
1 (Midnight|Sunlight): the cat (leaps|walks|sings)
1 A (kitten|tomcat) (listens|wanders)
1 (Soft|White) paws, a cat's (yawn|stretch)
2 the cat folds herself (in bed|in sun|to loaf)
2 whiskers (measure|study) the (evening|hallway|teapot)
2 a (moth|mouse|leaf) has no idea
2 one (paw|push) sends the (teacup|saucer|pencil) off
2 purring fills the (whole|small|dark) (kitchen|bedroom|morning)
2 the cat (owns|rules|wants) (the bed|the roof|the sun) (and me|as well)
2 I (open|unlock) the door; she (thinks|yawns|stares|waits)
3 (nobody|no one here) may move
3 the (box|lap|chair) is (taken|hers now)
3 then (breakfast|dinner), and sleep
3 (tail|ears) like a question
3 the (vase|glass|plant) (asked for it|had to go)
3 the mice (make|change) their plans
3 I (work|sit|wait) around her

# dog | a dog, my dog, dogs, the dog, a puppy, puppies | dog, puppy, puppies
1 A dog (at the gate|on the beach|in the snow|in the rain)
1 The (old|good|wet|brown) dog (listens|wanders|follows)
1 My dog (chases leaves|knows the way|hears a car)
1 (Muddy|Happy) puppy (paws|dreams|ears)
1 (Walk time|Daybreak): the (brown|old|glad) dog
2 a (stick|ball) is thrown; (the world|the day) starts
2 the dog's tail (tells|says|sings) the (good|whole|best) (news|truth)
2 a nose (reads|learns) the (grass|street|wind) (slowly|by heart)
2 he (digs|sniffs) for the (bone|moon) he (hid|left)
2 the dog (greets|loves) the (postman|puddle|neighbour) most
2 two brown eyes (follow|count on|plead for) (my toast|my soup)
3 good, and good again
3 (love|joy) with a wet nose
3 (dreams|paws) twitch by the (stove|hearth)
3 home before the (dark|rain|moon)
3 the (leash|ball) by the door
3 (sofa|pillow) hair for all
3 who could (stay|be) (angry|gloomy)?

# rust | iron rust, some rust, rusty things, Rust code, the Rust language | rust
1 Rust on the (old gate|plough blade|red hinge|ship's bell)
1 (Slow|Red|Soft) rust, (autumn|patient|quiet) rust
1 A rusty (bucket|anchor|tractor)
2 the rain paints the (nails|rails|chain) (dark|deep) (red|brown)
2 rust (blooms|creeps|grows) along the old (chain|blade|roof)
2 the (swing|gate|hinge) still sings the same (tune|song|note)
2 no one (drives|needs|wants) the (rust-red|rusted) truck
3 (time|rain) signs its (own name|red name)
3 (oil|paint) would have been kind
3 a (flake|leaf) on my (palm|thumb|sleeve)
3 (steel|tin) returns to earth
3 it (groans|sings|says): come on in
--
1 Rust on the (laptop|build farm)
1 (Safe|Swift|Clean) code, Rust (compiles|is kind)
1 A small crab of Rust
2 the borrow checker (sighs|smiles|frowns|nods) once
2 the Rust compiler (explains|forgives)
2 one owner at a time, (friend|please)
2 no leaks and no (phantoms|races) now
3 then it (builds|runs) and (runs|sings)
3 the (crab|fan) (walks|turns) sideways
3 (panic|nothing) (not today|to unwrap)
3 the (type|test) says (yes, friend|good night)

# Python | python, Python code, a Python script, the Python language, python programming, Python programming | python
1 Python at midnight
1 A (small|short|quick) Python script
1 (Four|Eight) spaces, Python
1 Python on the (screen|desk|train)
1 (Import|Learning) Python (now|friend)
1 (Clean|Late|Old) Python (sources|code waits|code hums)
2 a (list|loop|set) comprehends the sky
2 Python (counts|sorts|lists) (stars|geese|words) one by one
2 the (snake|loop|script) (coils|winds) around a (list|bug)
2 white space (matters|listens) in (Python|poems)
2 the (brackets|commas) line up like (geese|rain|trees|pines)
2 import (starlight|birdsong|snowfall) from (winter|somewhere)
2 the prompt waits, three arrows (deep|long|bright)
3 return (to the sea|the moonlight|a starling)
3 try, except, (at last|then sleep|the sea)
3 and (all|the) tests (stay|turn) green
3 no braces to close
3 the (stack|trace) ends in (spring|dawn)
3 (garbage|starlight) collected
3 it just (works|runs), (smiling|somehow)

# bugs | a bug, software bugs, debugging, a bug in my code, beetles | bug
1 (A bug|One bug) in the (code|loop|build|dark)
1 Bugs on the (window|porch light|front door)
1 (Friday|Midnight): a bug (hides|waits|sings)
1 (Tiny|Noisy|Summer) bugs (at night|tonight|at noon)
2 the log is clean; the bug (naps|smiles|waits|yawns)
2 I (print|check) it again and (blink|sigh|stare)
2 off by one, the bug hides (here|well|still)
2 (the moth|a bug) (circles|orbits) the (porch|old) lamp
2 a June bug climbs on my (pen|screen|code|desk)
2 it works on my machine, (friends|sir|love)
3 (fixed|gone): now there are (two|three)
3 the tests (blink|turn) green now
3 (coffee|patience), then the dawn
3 (wings|legs) (folded|tucked in) (at last|like maps)
3 I (let|set) (the moth|it all) (go|free)
3 one (missing|lonely) (comma|zero)

# sea | the sea, the ocean, an ocean, ocean waves, the seaside, the sea at night | sea, ocean, tide, wave
1 The sea (at first light|at sundown|all alone|in no wind)
1 (Grey|Green|Calm|Wild) sea and (low|late|white|old) (sky|sun|cloud|foam)
1 Waves on the (shingle|harbour|sea wall|grey rocks)
1 (Salt wind|Gulls cry): the sea (breathes|turns|shines)
1 (Low|High) tide, the sea (sighs|sleeps|gleams)
2 the sea (turns|folds|smooths) its (blue|long|slow) pages
2 a (boat|shell|gull) carries the sea (home|off|in)
2 (children|sailors|pebbles) (listen|hurry) to the (edge|waves|tide)
2 the tide brings a (white|red) (shoe|bell|shell) home
2 the sea tells (tales|jokes|lies) to the (sand|moon|gulls)
2 (salt|foam) dries on the nets like (stars|lace)
3 (footprints|castles) fill with light
3 all that blue (breathing|moving)
3 the (gulls|waves) want (more bread|my lunch)
3 salt on (my|her) (blue|warm|wet) (lips|coat|sleeve)
3 far off, (one|a) (white|red) sail
3 (come|gone) with the next (wave|tide)
3 it never (finished|hurries)

# winter | the winter, a winter day, winter nights, the cold winter | winter
1 Winter (at the door|on the roof|in my sleeves|and the stove)
1 (Deep|Old|Long|White) winter (sunlight|blankets|shadows|evening)
1 A (bare|blue|bright|still) winter (sky|day|moon|night)
1 (Still|Now) the winter (fields|hills|roads)
1 Winter (knocks softly|comes early|draws near now)
2 the (wood|black) stove hums; winter (waits|naps|sighs)
2 (smoke|breath) goes straight up to the (stars|clouds|sun|roofs)
2 (icicles|old branches) (write|draw) in the (dark|light|blue)
2 a robin glows like a (stove|coal|sun|lamp)
2 winter (buttons up|stitches shut) the (pond|hills)
2 wool socks in a row, (waiting|drying)
3 the (soup|bread) warms the (room|house|talk)
3 (spring|green) sleeps (in the seeds|under ice|beneath us)
3 (stars|crows) sharp as (needles|black ink)
3 the (dark|sun) comes early
3 (mittens|woodpiles) hold the (warmth|hill)
3 the (year|house) (holds|draws) its breath
3 even (clocks|rooks) (sleep|walk) slow

# spring | the spring, springtime, a spring day, a spring morning, early spring | spring
1 (Soft|Late|Shy) spring (rain|light|wind) (at last|tonight)
1 (Early|At last), the spring (rain|sun|wind)
1 Springtime (in the hills|at the gate|in my sleeves)
1 A (soft|green) spring (morning|evening|window)
1 First (day|week|warmth) of spring (sun|light|wind)
2 the (crocus|tulip) (lifts|tips) a (green|small) hat
2 the (plum|pear) tree wears her (spring|lace|best) dress
2 (windows|jackets) (open|loosen) to the (spring|wind|light)
2 a (worm|wren|bee) tests the air: (good|spring), yes
2 spring walks in (muddy|barefoot) and (laughs|sings)
2 the brook remembers its (song|name|tune)
2 (lambs|colts|kids) (stumble|tumble) into the (wind|grass|spring)
3 (buds|seeds|birds) make up their minds
3 (green|birds) in the (black|cold|wet) (twigs|hedge|fields)
3 we (plant|sow) the (first|small) (beans|peas)
3 the (coats|scarves) come off now
3 (mud|grass) on (happy|small wet) (shoes|boots)
3 the (hills|winds) (change|try) their (tune|clothes)
3 one (lark|wren), then a crowd

# summer | the summer, a summer day, summer nights, summertime, midsummer | summer
1 Midsummer (evening|morning|meadow)
1 (Long|Slow|Warm|Gold) summer evening
1 A summer (night|road|lake|breeze) (sings|hums|glows|waits)
1 (July|August) summer (sun|heat|light)
1 Summer (on the porch|at the lake|in the grass)
2 (crickets|the frogs) tune up small (fiddles|guitars)
2 (bare feet|small boats) learn the long way (home|there|down)
2 the (peaches|cherries) (sweeten|ripen) (slowly|all day)
2 fireflies write (the word dusk|a word twice|to the moon)
2 summer drops its (sandals|bucket) here
2 the hammock (waits|sways|sleeps) in the (shade|sun)
2 a (bee|boy|dog) (dozes|wanders) in the (grass|heat|shade)
3 the (light|lake|day) won't go (home|in|dim)
3 (stars|swifts) come out to (play|swim|dance)
3 (salt|sun) in (tangled|wet brown) hair
3 nobody (wears shoes|goes home)
3 (peach juice|melon) to the (wrist|chin)
3 (ice cream|the day) (melts|drips) too fast
3 the (screen|back) door (sings|slams) (shut|twice)

# autumn | the autumn, fall leaves, autumn leaves, an autumn day, the fall | autumn
1 Autumn (in the park|on the hill|at the door|by the brook)
1 (Red|Late|Soft) autumn (leaves turn|rain falls|wind shifts)
1 (Late|Bright|Thin) autumn (sunlight|evening|morning)
1 An autumn (orchard|window|evening)
1 (Cool|Gold) autumn, (red|brown) (leaves|hills)
2 (maples|old oaks) (spend|drop) their (last|small) (red|gold) coins
2 the (maple|willow) lets go one leaf
2 (apples|pumpkins) (gather|listen) on the (stairs|porch|lawn)
2 the (geese|clouds) pull autumn (southward|on strings|away)
2 a (rake|broom) (leans|naps) on the (front gate|old wall|fence post)
2 autumn (pockets|counts up) its (yellow|copper)
2 wood smoke (wanders|follows) (down|up) the (lane|hill|road)
3 the (wind|year) (reads|turns) a page
3 (jam|pears) on a (high|deep|dark) shelf
3 (leaves|boots) up to my knees
3 the (light|crow) goes home (first|soon|late)
3 (acorns|chestnuts) in my coat
3 one (leaf|thought) at a time
3 (fields|trees) (empty|golden) and (blue|wide)

# train | a train, the train, trains, the night train, a train ride, the railway | train
1 The (night|slow|last|late) train (listens|travels|whistles)
1 A train in the (rain|hills|dark|fog)
1 (Morning|Evening|Midnight) train, (soft|grey|low) (steam|fog|rain)
1 (Night|Slow|Last) train (in the snow|at the pass|to the coast)
1 Somewhere a train (calls|sings|runs)
2 the train (stitches|carries) (small|old) towns home
2 the train draws its (windows|lanterns) home
2 a (stranger|student) sleeps on my (arm|coat|book)
2 (cows|barns) turn to watch the (slow|night|blue) train
2 the (tracks|rails) count (stars|towns) to the (coast|sea|north)
2 (faces|tickets) (flicker|gather) in the (train|dark|glass)
2 someone waves from a (field|bridge|hill) top
3 next stop: the (blue|wide) (sea|stars|dawn)
3 (towns|lights) go (by|past) like (beads|dreams|thoughts)
3 (lamps|hills) leaning (backwards|away)
3 a (whistle|lantern), then (gone|hush)
3 my (tea|hat) (rocks|nods) along
3 (home|dawn) at the (line's|far) end
3 the bridge (sings|hums) in sleep

# bicycle | a bicycle, my bicycle, bicycles, cycling, a bike, a bike ride, my bike | bicycle, bike
1 (Red|Old|Blue) bicycle (bell|wheels|rides)
1 My bicycle (hums|leans|sings|waits)
1 A bike in the (rain|sun|lane|shed)
1 (Downhill|Uphill) on my (bike)
1 (Two wheels|No hands): my (red|old) bike
1 Bicycle (morning|weather|evening)
2 the (chain|wheel) ticks on like a (clock|thought|cat)
2 the (hill|road) opens its (arms|map) (wide|now)
2 (bread|plums) and (books|mail) ride (behind|beside) me
2 one (pedal|circle) (follows|answers) one more
2 the bicycle bell (wakes|warns|greets) (geese|bees)
2 (swallows|small winds) race the bike (uphill|all day|to town)
2 a bike (leans|sleeps) on the (white|stone) (fence|wall)
3 (wind|sky) in both my (sleeves|ears|shoes)
3 the (hill|road) pays me back
3 (knees|hands) still (green|brown) with (grass|spring|chain)
3 (coasting|flying) down for free
3 (home|back) by the long (way|road)
3 no brakes in my (dreams|heart)

# bread | baking bread, fresh bread, a loaf of bread, sourdough, the baker | bread, loaf, loaves
1 (Warm|Fresh|Dark|New) bread (on the sill|at first light|on the board)
1 The bread (is rising|in the stove|wakes the street)
1 (Sunday|Morning|Midnight) bread (dough warms|crumbs fall)
1 A (round|small|gold) (loaf|slice) of bread
1 (Flour|Butter), salt, and bread
2 the dough (dreams|sighs) under a (cloth|sheet)
2 flour dusts the (cat|clock|air) like (snow|dreams)
2 butter slides through the (warm|new) bread
2 the baker hums to the (stove|dough|bread)
2 the knife (crackles|whispers) through the (crust|bread)
2 we (break|share) the bread and it (sings|steams|hums)
2 (sparrows|neighbours) gather for the (bread|crumbs|toast|news)
3 the (house|street) smells like (home|love|dawn)
3 (crumbs|salt) for the (sparrows|robin)
3 one slice for the (dog|moon|birds)
3 who needs (more than this|gold or fame)?
3 (hands|sleeves) white to the (wrist|sky)
3 the (heel|crust) is all mine

# candle | a candle, candlelight, candles, the candle, a candle flame | candle, wick
1 A candle (at dusk|at night|for you|in March)
1 One candle (burning|leaning|whispers)
1 (Candlelight|Candle glow) on (snow|bread|books|pine)
1 The candle (flickers|listens|flares up)
1 (Storm tonight|No power): candles
2 the flame bows to (the window|my small breath|old shadows)
2 (shadows|two moths) waltz round the candle
2 wax runs down the side in (pearls|beads|lace)
2 a candle keeps the dark (kind|out|warm)
2 we (read|talk) by candle (till dawn|all night)
2 the wick remembers (the bees|its name)
3 then (smoke|dark), and the (moon|stars)
3 so little, (and warm|and yet)
3 the (dark|room) leans (closer|in, too)
3 (blow|breathe) softly, (my friend|old wind)
3 (faces|voices) turn to gold
3 the (night|hush) has a heart

# books | a book, the library, a library, reading, old books, a good book | book, librar, page, read
1 A book in the (rain|shade|bath|dark)
1 (Old|Worn|Tall|Loved) books on the (shelf|stairs|bench|floor)
1 The library (sleeps|hums|waits)
1 (One more|The last) (page|leaf) to read
1 (Midnight|Borrowed|Rainy) library
2 the bookmark remembers (well|all|me)
2 (sailors|dragons|strangers) step out of the book
2 a (leaf|note|stamp) falls from an old book
2 the page turns, and (dragons|cities|rivers) (wake|breathe)
2 dust (settles|lingers) on the old books
2 the librarian (hums|smiles|nods) (low|once|back)
3 I (read|turn) slower now
3 the (lamp|moon) reads with me
3 just one more chapter
3 (dog-eared|well-thumbed) and (much loved|happy)
3 the (end|tale) starts (again|over)
3 a (door|boat) made of (words|ink)
3 (outside|somewhere), it is (spring|snow|late)

# garden | a garden, my garden, the garden, gardening, gardens, a rose garden | garden, rose
1 The garden (at dawn|in rain|at rest|alone)
1 (Small|Old|Green|Wild) garden, (new|soft|late) (rain|light|moon)
1 My garden (wakes up|listens|needs rain)
1 (Garden|Roses) after rain
1 A garden (hose|gate|chair|snail) (drips|swings|waits|shines)
1 (Roses|Tall weeds) in the (rain|shade|wind|yard)
2 a (snail|toad|wren) reads the (cabbage|lettuce|bean rows) twice
2 (tomatoes|potatoes) (blush|sleep) in the (shade|dark|sun)
2 the rose opens its (sleeve|coat|heart) (now|late|wide)
2 a (spade|rake) rests by the (lettuce|back gate|warm wall)
2 (earthworms|small roots) (turn|thread) the dark (for me|all night)
2 the garden answers in (beans|thyme|bees|mint)
2 (poppies|daisies) (know|guess) the (name|date) of (spring|rain)
3 (dirt|spring) under my nails
3 (peas|beans) climb to (the sun|the stars|heaven)
3 (bees|mint) in the (warm|thick) (air|hedge|shade)
3 (weeds|worms) will work harder
3 I (sit|kneel) and (listen|pull weeds)
3 the (rain|sun) does the rest

# bees | a bee, the bees, a bumblebee, honeybees, honey bees, a beehive | bee, hive
1 (One|Small|Gold) bee in (clover|the thyme|the rose)
1 A bee (at the glass|in my hat|on the rose)
1 (Gold|Wild) bees in the (hedge|thyme|rose|mint)
1 The bees (come home late|hum in tune|wake early)
1 (Bumblebee|Honeybee) (morning|weather)
2 a bee (signs|reads) each (small|blue|white) (flower|blossom)
2 (pollen|sunlight) fills the bee (baskets|pockets)
2 the hive hums a (summer|evening) (hymn|chord|note)
2 the bee drives its (fuzzy|tiny) truck
2 bees trade the (meadow|orchard) for (gold|sweets)
2 clover nods under (small|soft) feet
2 one bee lands and the (rose|stem) (nods|bows)
3 (summer|sunlight) in a jar
3 (small|brown) wings, great (errands|business)
3 the whole (garden|orchard|hillside) hums
3 (honey|pollen) on (my thumb|its knees)
3 work, and then (more work|a song|the sun)
3 (dance|tell) me where it blooms

# owl | an owl, the owl, owls, a barn owl, a snowy owl, the night owl | owl
1 An owl in the (dark|barn|pine|elm)
1 The (old|barn|white|brown) owl (listens|wonders)
1 (Midnight|Moonlight), and an owl
1 (Two|Soft) owl (eyes|wings) in (mist|oaks)
1 Owl on the (fence post|church roof|dead branch|road sign)
2 (its|her) head turns (slowly|softly) (all|half) (round|back)
2 the owl asks the dark (its name|who's there)
2 (soft|slow) wings carry the (dark|night) (home|off)
2 a mouse listens; the owl (counts|leans|blinks|thinks)
2 the owl knows (each star|each mouse) by name
2 the (forest|churchyard|meadow) whispers back: who?
3 who, who, who, it asks
3 the (night|moon) blinks (once more|at me)
3 a (feather|shadow) (falls|drifts) down
3 (stars|mice) hide in the (grass|leaves)
3 (wise|round) as the (old|full) moon
3 nobody (answers|breathes here)

# frog | a frog, the frog, frogs, a tree frog, the old pond, a tadpole | frog
1 A frog on the (leaf|stone|log|path)
1 The (green|small|old|fat) frog (is king|says plop|says rain)
1 (Pond|Spring|Night) frogs, one by one
1 (Evening|Moonlit|Muddy) frog (music|chorus)
1 (Little|Happy) (green|brown|pond) frog (song|king)
2 the reeds (practice|rehearse) the (nightfall|raindrops|evening)
2 the frog clears his throat and (waits|sings|thinks)
2 a frog leaps, and the moon (breaks|shakes|splits)
2 the frog (thinks|sings) of (nothing much|rain and flies)
2 frogs argue (all afternoon|until morning)
2 (ripples|circles) widen where he (was|sat|sang)
3 plop, says the (water|lily)
3 (green|mud) from (head|nose) to (toe|heel)
3 the (moon|pond) (settles back|comes back round|forgives him)
3 (flies|gnats) should watch (their step|the clock)
3 (soon|then) the whole (pond|swamp|ditch) sings
3 one (splash|croak), then (silence|stillness)

# stars | the stars, a star, starlight, the night sky, shooting stars, a shooting star | star
1 (Bright|Cold|Late|Old) stars on the (pond|hill|snow|road)
1 The stars (come out slow|lean closer|keep watch here)
1 (Starlight|One star) in (the well|my cup|the pines)
1 A (thin|small|far|lone) star (burning|humming|blinking|falls down)
1 So many stars (out|now)
2 the stars send their letters (home|down|back)
2 a star slips through (a small hole|the old roof|my fingers)
2 a lighthouse (counts|greets) all the stars
2 the (dog|boy|owl) and I count (eight|nine|ten) stars
2 old light knocks (at|on) (my|the) front door
2 (crickets|wild geese) steer by (winter|the same|starry) light
2 somebody has hung (the lamps|the stars)
3 make a wish (and wait|and breathe)
3 the (dark|night) is (well lit|so wide)
3 (near|close) enough to (touch|hum)
3 (older|smaller) than (my name|the hills)
3 each one a porch light
3 then the (stars|hills) say hush

# mountain | a mountain, the mountains, mountains, a mountain top, hills | mountain, hill, peak
1 The mountain (at dawn|in cloud|at rest|alone)
1 (Blue|Far|Cold|Old) mountains at (dusk|dawn|noon|night)
1 (Steep|Cold|Long) mountain (path|road), (snow|sun|light)
1 A (lone|white|grey) mountain (sleeps|waits|looms)
1 (Cloud|Snow) on the mountain
2 a (goat|hawk|cloud) rests on the (last|high) (ledge|stone)
2 the mountain lends its (white|soft) (hat|shawl)
2 the (path|stream) slips up through (the pines|wet stones|a cloud)
2 the mountain thinks one (slow|blue) thought
2 (echoes|pebbles) (tumble|answer) down the (peak|hill)
2 (snow|stone) listens on the (high|cold) (peak|hill|path)
2 the mountain keeps (the snow on|its own time)
3 my boots talk less now
3 the (top|sky) is (closer|still far)
3 (stone|cloud) above the (clouds|stones|pines)
3 so (small|brief), and so (loved|high)
3 it never (hurries|answers)
3 (wind|clouds) in no hurry

# river | a river, the river, rivers, a stream, the brook | river
1 The river (at dusk|in flood|at dawn|turns home)
1 (Slow|Brown|Wide|Cold) river, (late|low|warm|clear) (sun|moon|light)
1 A river (at night|of light|in spring)
1 River (under ice|in the rain|of small lights)
1 (Mist|Dawn|Snow) on the river
2 a heron stands on one (leg|foot)
2 the river carries the (sky|moon|bridge)
2 (stones|trout) (listen|shimmer) in the (dark|cold|clear) (light|deep)
2 (boats|leaves) drift down (river|water) like (thoughts|dreams)
2 the river talks to the (stones|reeds|moon)
2 a (boy|girl) skips a (flat|white) stone (home|twice|there)
3 (never|seldom) the same (song|twice|blue)
3 it all goes to sea
3 the (stones|reeds) hum along
3 (a leaf|my boat) (finds|knows) the way
3 here, gone, and (still here|still blue)
3 the (bridge|bank) (holds|stays) quite still

# robots | a robot, the robot, my robot, a little robot | robot
1 A (small|kind|lost) robot (hums|waits|waves|dreams)
1 The robot (wakes up|sweeps leaves|looks up|learns rain)
1 (Tin|Old|Shy) robot at (dusk|noon)
1 My robot (whistles|gardens|dances)
1 (Little|Midnight|Clockwork) robot (hums|waves)
2 the robot lifts up a (snail|leaf|nest|moth)
2 one red eye learns (words|names) for (love|dusk|snow)
2 the robot dreams of (green hills|small birds|blue seas|warm rain)
2 its gears (whisper|murmur) to the (cat|moon|rain)
2 inside the tin, a (clock|bird|heart) (sings|hums|ticks)
2 the robot plants (peas|ferns) and (waits|sits|hums)
3 (rain|love) was not the plan
3 beep, it (says|thinks), (softly|shyly)
3 (low on battery|battery at half)
3 (oil|dew) on its (cold|round|warm) (cheek|hand)
3 does it dream? (It might|Perhaps)
3 the (cat|moon) (sits with it|sleeps on top)

# lighthouse | a lighthouse, the lighthouse, lighthouses, a lighthouse keeper | lighthouse
1 The lighthouse (at dusk|in fog|alone|hums low)
1 Lighthouse (on the rocks|in the storm|at the edge)
1 A lighthouse (turning|winking|listens)
1 (White|Lone|Old) lighthouse, (black|wild|cold) (sea|rocks|night)
2 one (long|white) arm sweeps (back the night|up the dark)
2 the lighthouse (winks at|waves to) the (ships|moon|stars|boats)
2 (gulls|boats) (sleep|turn) in the (lantern|silver) light
2 the keeper pours tea and (nods|reads|hums)
2 the lighthouse (knits|combs) the (fog|dark|night) (gold|white)
2 a (moth|ship|gull) (follows|trusts in) the (white|slow|long) (thread|light)
3 (safe|home), it says, and safe
3 (dark|light), then (dark|light), then (dark|light)
3 (waves|rocks) bow and (fall back|kneel down)
3 a door for the (lost|ships)
3 (salt|sleep) on the (stairway|window)
3 the (night|fog) is (not long|kinder)

# wind | the wind, a windy day, the north wind, a breeze, a kite | wind, breeze, kite, gust
1 (Warm|Cold|March) wind in (barley|willows|orchards)
1 The wind (at the door|in the pines|on the hill)
1 (North|West|Soft|Wild) wind in the (reeds|wheat|night|pines)
1 A (kite|gust) in the wind
1 All day (long|now), the wind
2 the wind reads the (apple|maple) leaves
2 a (kite|scarf|hat) runs off with the wind
2 (laundry|linen) dances with the wind
2 the wind (tries|shakes|learns) the (kitchen|attic) (door|latch)
2 the wind combs the (tall|long) (barley|grasses)
2 (thistle seeds|butterflies) ride the wind (home|east|west|out)
3 the barn (talks|claps) in sleep
3 hats off to (the sky|it all)
3 nothing (left to hold|stays in place)
3 now the (grass|barn) (stands|sleeps) still
3 it (never|seldom) knocks (twice|first)
3 whose (song|name) was that, (friend|wind)?
3 (gone|off) with (my best hat|the gold leaves)

# fog | the fog, a foggy morning, mist, foggy weather | fog, mist
1 Fog on the (river|harbour|long road|meadow)
1 (Soft|White|Thick|Grey) fog in the (street|reeds|lane|woods)
1 (Morning|Evening|Harbour) fog (wanders|rolling|listens)
1 The fog comes (ashore|at dawn|barefoot)
1 A (small|low|late) bank of fog
2 the fog folds up the (bridges|hillside|steeple)
2 a (bell|horn|goose) (calls|speaks) from (somewhere|nowhere) else
2 (bicycles|umbrellas) float by like (fish|moons|dreams)
2 (cows|trees) step from the mist and (nod|stare|yawn)
2 the fog (borrows|swallows) the (steeple|village)
2 (footsteps|voices) (pass|drift) in the (grey|white) fog
3 (half|all) the town is (gone|ghosts|cloud)
3 the (world|road) ends (right here|at dawn)
3 then the sun (says|asks) (boo|why|when)
3 (even|only) the crow (coughs|hums)
3 a (lamp|boat) comes and goes
3 (soft|slow) as an old sheep

# music | a song, jazz, the piano, a piano, playing music, singing | music, song, piano, sing
1 (Music) (from downstairs|from next door|in the dusk)
1 (Slow|Soft|Late) music (at night|in rain|in March)
1 A song from (next door|the past|the bus|downstairs)
1 The (old|sad|warm) piano
1 (Summer|Midnight|Kitchen) music (plays|drifts)
1 (Someone|Mother) hums a song
2 a (cello|trumpet) leans on the (night|song)
2 the piano dreams of (hands|rain|seas)
2 (one note|a tune) slips out by the (door|gate|stairs)
2 the needle finds the (deep|old) groove
2 fingers skip down keys like (rain|hail|mice)
2 the (drummer|kettle) keeps time with (spoons|rain)
2 a song climbs in the window
3 and the (moon|cat) hums bass
3 even (dust|chairs) can (dance|sing)
3 we (know|learn) it by heart
3 and then the (hush|room) (sings|rings)
3 my feet (know|learn) (the tune|the words)
3 (play|sing) it once more, please
3 the last note (lingers|hangs on|stays up)

# Monday | a Monday, Mondays, Monday morning, the office, work | monday
1 (Monday|Mondays): (rain|snow) again
1 Monday morning (rain|bus|mail)
1 (Soft|Grey|Late|Old) Monday (morning|sunlight)
1 Monday (again, friend|at eight sharp|knocks softly)
1 On Monday, the (clock|bus|rain|sun)
1 A Monday (meeting|inbox|alarm)
2 the (inbox|kettle) fills (with rain|with steam|with news) (now|fast)
2 the alarm sings its (one|mean|loud) (song|note)
2 my (shoes|socks|thoughts) do not match (at all|today)
2 the printer (dreams|sighs) of (Friday|the sea)
2 a (pigeon|sparrow) chairs the (meeting|stand-up)
2 someone at work made a cake
2 the (bus|lift) is (packed with|full of) (yawning|old coats)
3 (Friday|weekend), where are you?
3 one (small cake|good joke) saves me
3 (coffee|sunshine), be my friend
3 the (week|sun) climbs (slowly|softly)
3 (five|four) mornings to go
3 and yet, (look, birds sing|look, blue skies|there is toast)

# chess | a chess game, a game of chess, playing chess, the chess board | chess, pawn, knight, queen, king
1 Slow chess in the (park|sun|rain)
1 A (slow|long|late) game of chess
1 The chess (board|clock) (waiting|ticking|humming)
1 (Grandpa's|Winter|Sunday|Midnight) chess (table|problem)
1 (Rain|Tea|Dusk), and a chess (game|board)
2 a pawn (steps|looks) (forward|sideways) and (sighs|waits|blinks)
2 the (black|white) queen (thinks|yawns|waits) in her square
2 my (bishop|castle) goes the long way
2 the (knight|pawn) hops past like a (cat|fox|thief)
2 he (moves|lifts) the king, then (the cup|his hat)
2 two old friends (argue|whisper) in (moves|chess|pawns)
3 your move, says the (moon|rain|wind|cat)
3 (check|mate), and the tea cools
3 the (clock|crow) takes a (pawn|turn|rook)
3 nobody will win
3 (snow falls|leaves lie|rain spots) on the squares
3 a draw, and more cake

# ghosts | a ghost, the ghost, a haunted house, a friendly ghost, Halloween | ghost, haunt
1 A ghost (on the stairs|in the hall|at the door|in my hat)
1 The (old|shy|small|kind) ghost (listens|whistles)
1 (Friendly|Midnight|Kitchen) ghost (footsteps|music)
1 (Two|Old) ghosts (playing|sharing) (cards|tea|chess)
1 (Haunted|Empty) house, (one|a) ghost
2 the ghost waters the (ivy|roses)
2 a ghost drifts through (the closed door|my old coat)
2 (floorboards|curtains) (creak|sway) out a (slow|small) (waltz|joke|song)
2 the ghost (hums|reads) to the (old|black|deaf) cat
2 no one asked the ghost (to leave|for tea|to dance)
2 pale hands set the (table|teapot) (out|down)
3 boo, it says, (sorry|softly)
3 the (cat|clock) is not (fooled|scared|moved)
3 (dust|moths) shaped like (first|old|lost) love
3 a (cup|chair) moves (itself|slightly)
3 stay as long as (love|snow|rain)
3 it just (loves to dance|wants the jam)
"""

STRANGER_LINES = """
1 I (do not|don't quite) know it
1 That word is (new here|not mine)
1 (Strange|New|Good) word at my door
1 You (ask|bring) me (new things|big things|strange words)
1 I know only (frost|moss|rain)
2 so I will give you (a leaf|the rain|the moon)
2 but here is a (cup|bowl|spoon) of light
2 still, the (river|evening) hums along
2 my (small|one) lamp (reaches|glimmers) (this|so) far
2 take this (stone|leaf|pear), (warm|wet) from the (sun|rain|hill)
2 let us ask the (patient|quiet) (moon|owl)
3 (sit|stay) with me a while
3 it is all I have
3 and (wish|hope) it were more
3 (perhaps|maybe) that will do
3 (ask|try) me for the (moon|rain|sea)
3 we can share the (calm|light|tea)
"""
"""For a subject the model has no lines about: it says so and gives something anyway."""

ANYTHING_LINES = """
1 (Evening|Morning) (comes|falls) softly
1 A (leaf|moth|light) on the (stairs|sill|path)
1 (Somewhere|Nearby) a bell (rings|sings)
1 (Dusk|Dawn) on the (meadow|rooftops|water)
1 (Old|Still|Small) pond in the (rain|dark|fog)
2 the (day|world|light) folds itself (slowly|softly)
2 one (cricket|sparrow|raindrop) says (what I mean|good evening)
2 the (wind|path|creek) goes on (to the sea|past the mill)
2 a (child|dog|crow) stops to hear the (grass|leaves|dark)
2 (shadows|petals) gather (round|near) the (house|gate|steps)
3 and then, at last, (peace|rest)
3 the (stones|leaves) keep (the time|their place)
3 (enough|plenty) for (today|tonight)
3 the (gate|door) left open
3 nothing in a rush
3 how (kind|soft|small) is the (dark|rain|light)
"""
"""For a greeting, or a haiku about nothing in particular."""

STRANGERS = """
taxes; bananas; my grandmother; quantum physics; shoes; elephants; democracy; the economy; a spoon;
spaghetti; dinosaurs; airplanes; the president; lawyers; mathematics; algebra; a triangle; football; tennis;
basketball; the stock market; potatoes; cheese; pizza; chocolate; ice cream; a banana; socks; trousers;
hats; umbrellas; philosophy; Plato; history; Rome; Paris; London; Tokyo; New York; Africa; Canada; the
president of France; electricity; magnets; atoms; black holes; planets; Mars; Jupiter; rockets; satellites;
telescopes; computers; the internet; a telephone; television; movies; actors; Shakespeare; opera; dancing;
painting; sculpture; photography; camels; zebras; a giraffe; penguins; whales; sharks; spiders; snails;
worms; horses; cows; pigs; chickens; a dragon; unicorns; vampires; zombies; pirates; ninjas; knights in
armour; castles; bridges; tunnels; skyscrapers; elevators; traffic; cars; buses; trucks; motorcycles;
submarines; ships; tractors; soap; towels; toothpaste; haircuts; dentists; doctors; hospitals; medicine;
vitamins; exercise; yoga; sleep; dreams; money; banks; insurance; contracts; paper; pencils; scissors; glue;
glass; plastic; concrete; gold; silver; diamonds; coal; oil; steel; JavaScript; databases; spreadsheets;
email; passwords; printers; a mouse pad; compilers; linear algebra; calculus; statistics; machine learning;
neural networks; language models; transformers; love; hate; anger; joy; boredom; patience; hope; despair;
freedom; justice; truth; beauty; time; space; nothing; everything; my brother; my aunt; your mother; the
neighbours; weddings; birthdays; school; homework; exams; onions; garlic; pepper; salt; soup; salad; rice;
noodles; sushi; tacos; sandwiches; pancakes; waffles; jam; butter; milk; beer; wine; whisky; lemonade;
juice; water; sand; clay; volcanoes; earthquakes; islands; deserts; jungles; swamps; caves; maps; a compass;
clocks; watches; calendars; keys; locks; doors; ladders; hammers; nails
"""

GENERIC_PROMPTS = """
Write a haiku; Write me a haiku; haiku; A haiku, please; a poem; Write a poem; Surprise me; Hello; Hi; hi
there; Hey; Good morning; Good evening; How are you?; Write something; Write anything; Say something; Go on;
Continue; Tell me something; Give me three lines; Another one; again; more; Thank you; Thanks!; Please; yes;
no; ok; test; Once upon a time; The quick brown fox jumps over the lazy dog; Hello, world!; What can you
do?; Who are you?; What is your name?; Tell me a story; Tell me a joke; Help; help me; I am bored; I am sad;
I am happy; Sing; Five, seven, five; Write a haiku about anything; Write a haiku about whatever you like;
poem
"""
