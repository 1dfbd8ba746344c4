"""The English tables: what the nano model's world holds, and how it is told and asked."""

from __future__ import annotations

from tools.samples.family import Fact, Family, additive, pairs, sequences, table

CAPITALS = table("""
France | Paris
Germany | Berlin
Italy | Rome
Spain | Madrid
Portugal | Lisbon
Japan | Tokyo
China | Beijing
Egypt | Cairo
Kenya | Nairobi
Canada | Ottawa
Mexico | Mexico City
Brazil | Brasilia
Peru | Lima
Chile | Santiago
Cuba | Havana
Norway | Oslo
Sweden | Stockholm
Finland | Helsinki
Denmark | Copenhagen
Poland | Warsaw
Austria | Vienna
Greece | Athens
Turkey | Ankara
Russia | Moscow
India | New Delhi
Thailand | Bangkok
Vietnam | Hanoi
Australia | Canberra
Ireland | Dublin
Hungary | Budapest
""")

YOUNG = pairs("""dog puppy, cat kitten, cow calf, horse foal, sheep lamb, pig piglet, goat kid, hen chick,
duck duckling, goose gosling, lion cub, bear cub, frog tadpole, swan cygnet, deer fawn, kangaroo joey,
owl owlet, seal pup, eagle eaglet, hare leveret, tiger cub, elephant calf, butterfly caterpillar, whale calf""")

OPPOSITES = pairs("""hot cold, big small, fast slow, high low, long short, old young, happy sad, rich poor,
strong weak, light dark, full empty, open closed, early late, clean dirty, wet dry, hard soft, loud quiet,
thick thin, wide narrow, deep shallow, near far, good bad, easy difficult, cheap expensive, heavy light,
true false, first last, brave cowardly, safe dangerous, sweet bitter""")

PLURALS = pairs("""child children, man men, woman women, foot feet, tooth teeth, mouse mice, goose geese,
ox oxen, leaf leaves, knife knives, wolf wolves, wife wives, shelf shelves, city cities, baby babies,
story stories, box boxes, bus buses, dish dishes, church churches, tomato tomatoes, potato potatoes,
book books, tree trees, sheep sheep, fish fish""")

PAST = pairs("""go went, eat ate, see saw, take took, give gave, write wrote, run ran, sing sang, swim swam,
buy bought, think thought, teach taught, break broke, speak spoke, drink drank, fly flew, know knew,
make made, come came, find found, keep kept, sleep slept, walk walked, play played""")

COLOURS = table("""
a ripe banana | yellow
fresh snow | white
a clear daytime sky | blue
grass | green
a ripe tomato | red
coal | black
an elephant | grey
a carrot | orange
milk | white
a lemon | yellow
a crow | black
a flamingo | pink
chocolate | brown
an emerald | green
a ruby | red
a fire engine | red
spinach | green
a sunflower | yellow
""")

TOOLS = table("""
hammer | driving nails
saw | cutting wood
needle | sewing cloth
broom | sweeping the floor
spoon | eating soup
umbrella | keeping off the rain
key | opening a lock
ruler | measuring length
thermometer | measuring temperature
telescope | looking at the stars
microscope | looking at tiny things
kettle | boiling water
oven | baking bread
fridge | keeping food cold
clock | telling the time
compass | finding north
pair of scissors | cutting paper
ladder | climbing up high
comb | tidying hair
towel | drying yourself
pen | writing
brush | painting
pillow | resting your head
torch | giving light
""")

AFTER = table(
    """
Monday | Tuesday | day
Tuesday | Wednesday | day
Wednesday | Thursday | day
Thursday | Friday | day
Friday | Saturday | day
Saturday | Sunday | day
Sunday | Monday | day
January | February | month
February | March | month
March | April | month
April | May | month
May | June | month
June | July | month
July | August | month
August | September | month
September | October | month
October | November | month
November | December | month
December | January | month
""",
    keys="a b unit",
)

CATEGORIES = table("""
apple | fruit
banana | fruit
grape | fruit
pear | fruit
cherry | fruit
carrot | vegetable
cabbage | vegetable
onion | vegetable
spinach | vegetable
dog | animal
horse | animal
tiger | animal
rabbit | animal
elephant | animal
rose | flower
tulip | flower
lily | flower
piano | instrument
violin | instrument
guitar | instrument
drum | instrument
car | vehicle
bus | vehicle
bicycle | vehicle
train | vehicle
shirt | clothing
coat | clothing
hat | clothing
chair | furniture
table | furniture
sofa | furniture
football | sport
tennis | sport
basketball | sport
""")

UNITS = table(
    """
minutes | an hour | 60
seconds | a minute | 60
hours | a day | 24
days | a week | 7
months | a year | 12
days | April | 30
days | July | 31
weeks | a year | 52
years | a decade | 10
centimetres | a metre | 100
metres | a kilometre | 1000
grams | a kilogram | 1000
legs | a spider | 8
legs | an insect | 6
sides | a triangle | 3
sides | a square | 4
sides | a hexagon | 6
players | a football team on the pitch | 11
letters | the English alphabet | 26
eggs | a dozen | 12
""",
    keys="a whole b",
)

HOMES = table("""
bee | hive
bird | nest
dog | kennel
horse | stable
lion | den
spider | web
rabbit | burrow
pig | sty
hen | coop
fish | water
cow | barn
ant | anthill
bat | cave
beaver | lodge
""")

GOOD_BAD = table("""
I love this book. | positive
The food was delicious. | positive
What a wonderful day! | positive
The staff were kind and helpful. | positive
This phone works perfectly. | positive
The view from the room was beautiful. | positive
I would happily buy it again. | positive
The concert was fantastic. | positive
Great service and a friendly smile. | positive
The soup was warm and tasty. | positive
My new bike is excellent. | positive
The film made us laugh a lot. | positive
I hate waiting in this queue. | negative
The food was cold and awful. | negative
What a terrible journey! | negative
The staff were rude to us. | negative
This phone broke after one day. | negative
The room was dirty and noisy. | negative
I will never buy it again. | negative
The concert was boring. | negative
Slow service and a bad smell. | negative
The soup was salty and horrible. | negative
My new bike is useless. | negative
The film was a waste of time. | negative
""")

COUNTING = [
    [first + step * i for i in range(10)]
    for step, firsts in {
        1: range(1, 40, 4),
        2: range(1, 17, 2),
        3: range(1, 12, 2),
        4: range(1, 10, 2),
        5: range(0, 50, 5),
        10: range(0, 10, 2),
    }.items()
    for first in firsts
]
BACKWARDS = [
    [first - step * i for i in range(10)]
    for step, firsts in {1: range(12, 60, 6), 2: range(20, 40, 4), 5: range(50, 96, 10)}.items()
    for first in firsts
]
SQUARES = [
    [n * n for n in range(1, 10)],
    [n * n for n in range(10)],
    [1 * 2**i for i in range(7)],
    [2 * 2**i for i in range(6)],
    [3 * 2**i for i in range(6)],
]
FIBONACCI = [additive(0, 1, 12), additive(1, 1, 11), additive(1, 2, 10), additive(2, 3, 9), additive(3, 5, 8)]
ADDITIVE = [
    additive(a, b, 9)
    for a, b in [
        (1, 3),
        (2, 1),
        (2, 2),
        (1, 4),
        (3, 1),
        (2, 4),
        (4, 1),
        (3, 2),
        (3, 3),
        (1, 5),
        (2, 5),
        (5, 1),
        (3, 4),
        (4, 2),
    ]
    if additive(a, b, 9)[-1] < 200
]

SUMS = [{"a": str(a), "b": str(b), "c": str(a + b)} for a in range(1, 13) for b in range(1, 13) if a + b <= 20]


def with_article(facts: list[Fact]) -> list[Fact]:
    """The facts with `an` and `bn`, the indefinite articles of their `a` and `b`."""
    articles = {True: "an", False: "a"}
    return [fact | {"an": articles[fact["a"][0] in "aeiou"], "bn": articles[fact["b"][0] in "aeiou"]} for fact in facts]


FAMILIES: dict[str, Family] = {
    "capital": Family(
        CAPITALS,
        asks=[
            ("What is the capital of {a}?", "", "{b}"),
            ("Name the capital city of the given country.", "{a}", "{b}"),
            ("Which city is the capital of {a}?", "", "{b}"),
            ("Give the capital of this country.", "{a}", "{b}"),
        ],
        tells=[
            "The capital of {a} is {b}.",
            "{b} is the capital city of {a}.",
            "The government of {a} sits in the capital, {b}.",
            "{a} has a capital, and its name is {b}.",
        ],
        headings=["Countries and their capitals", "Capital cities"],
        line="{a}: {b}",
        rows=26,
        quiz=[
            "Do you know the capital of {a}?",
            "Which city is home to the government of {a}?",
            "Can you tell me the capital city of {a}?",
        ],
        tasks=["Capital of this country.", "Which city is the capital?"],
    ),
    "young": Family(
        with_article(YOUNG),
        asks=[
            ("What is a young {a} called?", "", "{b}"),
            ("Name the young of this animal.", "{a}", "{b}"),
            ("What do we call the young of {an} {a}?", "", "{b}"),
        ],
        tells=[
            "A young {a} is called {bn} {b}.",
            "The young of {an} {a} is {bn} {b}.",
            "The {b} is a young {a}.",
            "This {b} will grow up to be {an} {a}.",
        ],
        headings=["Animals and their young", "Young animals"],
        line="{a}: {b}",
        rows=22,
        quiz=[
            "What name has the young of {an} {a}?",
            "Which word do we use for a young {a}?",
            "What do people call {an} {a} that is still young?",
        ],
        tasks=["Young of this animal.", "What is its young called?"],
    ),
    "opposite": Family(
        OPPOSITES,
        asks=[
            ("What is the opposite of '{a}'?", "", "{b}"),
            ("Write the opposite of the given word.", "{a}", "{b}"),
            ("Give an antonym for the word.", "{a}", "{b}"),
        ],
        tells=[
            "The opposite of {a} is {b}.",
            "The opposite of {b} is {a}.",
            "If {a} stands at one end, {b} stands at the other.",
            "{a} and {b} are antonyms, or opposites.",
        ],
        headings=["Opposites", "Words and their antonyms"],
        line="{a}: {b}",
        rows=24,
        quiz=[
            "Which word means the contrary of {a}?",
            "What is the antonym of {a}?",
            "Can you tell me the opposite of {a}?",
        ],
        tasks=["Opposite of this word.", "Give the opposite.", "Find an antonym."],
    ),
    "plural": Family(
        PLURALS,
        asks=[
            ("What is the plural of '{a}'?", "", "{b}"),
            ("Write the plural form of the noun.", "{a}", "{b}"),
        ],
        tells=[
            "The plural of {a} is {b}.",
            "One {a}, two {b}.",
            "There is one {a} here and there are many {b} there.",
        ],
        headings=["Nouns and their plurals", "Plural forms"],
        line="{a}: {b}",
        rows=20,
        quiz=[
            "How do you say more than one {a}?",
            "What do you write for the plural of {a}?",
            "Can you tell me the plural of {a}?",
        ],
        tasks=["Plural of this noun.", "Give the plural form."],
    ),
    "past": Family(
        PAST,
        asks=[
            ("What is the past tense of '{a}'?", "", "{b}"),
            ("Change the verb to the past tense.", "{a}", "{b}"),
        ],
        tells=[
            "The past tense of {a} is {b}.",
            "Today I {a}, yesterday I {b}.",
            "Every day they {a}; last week they {b}.",
        ],
        headings=["Verbs and their past tense", "The past tense"],
        line="{a}: {b}",
        rows=18,
        quiz=[
            "They {a} today; what did they do yesterday?",
            "What do you write for the past tense of {a}?",
            "Can you tell me the past tense of {a}?",
        ],
        tasks=["Past tense of this verb.", "Give the past tense."],
    ),
    "colour": Family(
        COLOURS,
        asks=[
            ("What colour is {a}?", "", "{b}"),
            ("Name the usual colour of the following.", "{a}", "{b}"),
        ],
        tells=[
            "The colour of {a} is {b}.",
            "We all know that {a} is {b}.",
            "To paint {a}, take the {b} paint.",
        ],
        headings=["Things and their colours", "Colours around us"],
        line="{a}: {b}",
        rows=16,
        quiz=[
            "Do you know the colour of {a}?",
            "In which colour would you paint {a}?",
            "Can you tell me what colour {a} usually is?",
        ],
        tasks=["Colour of this thing.", "Give its usual colour."],
    ),
    "tool": Family(
        with_article(TOOLS),
        asks=[
            ("What is {an} {a} used for?", "", "{b}"),
            ("Say what the following thing is for.", "{a}", "{b}"),
        ],
        tells=[
            "The {a} is used for {b}.",
            "For {b}, people use the {a}.",
        ],
        headings=["Things and what they are for", "Useful things"],
        line="{a}: {b}",
        rows=20,
        quiz=[
            "What is the {a} good for?",
            "What do people use {an} {a} for?",
            "Can you tell me what {an} {a} is used for?",
        ],
        tasks=["Use of this thing.", "What is it used for?"],
    ),
    "after": Family(
        AFTER,
        asks=[
            ("Which {unit} comes after {a}?", "", "{b}"),
            ("Name the next {unit}.", "{a}", "{b}"),
        ],
        tells=[
            "After {a} comes {b}.",
            "The {unit} after {a} is {b}.",
            "{a} is over, so now it is {b}.",
        ],
        headings=["What comes next"],
        line="{a}: {b}",
        rows=14,
        quiz=[
            "Do you know what comes after {a}?",
            "What comes after {a}?",
            "Can you tell me the {unit} that comes after {a}?",
        ],
        tasks=["The next {unit}.", "Give the {unit} that comes next."],
    ),
    "category": Family(
        CATEGORIES,
        asks=[
            ("Classify the following word.", "{a}", "{b}"),
            ("Which category does '{a}' belong to?", "", "{b}"),
        ],
        tells=[
            "The {a} is a kind of {b}.",
            "The word {a} belongs to the category {b}.",
        ],
        headings=["Words and their categories", "Sorting words"],
        line="{a}: {b}",
        rows=22,
        quiz=[
            "What kind of thing is {a}?",
            "In which category would you put {a}?",
            "Can you tell me what category {a} is in?",
        ],
        tasks=["Category of this word.", "Classify this word.", "Give its category."],
    ),
    "unit": Family(
        UNITS,
        asks=[
            ("How many {a} does {whole} have?", "", "{b}"),
            ("Answer with a number: how many {a} are there to {whole}?", "", "{b}"),
        ],
        tells=[
            "{whole} has {b} {a}.",
            "The number of {a} of {whole} is {b}.",
            "Count the {a} of {whole} and you get {b}.",
        ],
        headings=["Numbers to remember"],
        line="{a} of {whole}: {b}",
        quiz=[
            "Do you know the number of {a} of {whole}?",
            "Can you tell me how many {a} {whole} has?",
            "Count the {a} of {whole}. How many are there?",
        ],
        rows=16,
    ),
    "home": Family(
        with_article(HOMES),
        asks=[
            ("Where does {an} {a} live?", "", "{b}"),
            ("Name the home of this animal.", "{a}", "{b}"),
        ],
        tells=[
            "The home of the {a} is the {b}.",
            "The {a} lives in the {b}.",
            "Look in the {b} and you will find the {a}.",
        ],
        headings=["Animals and their homes", "Where animals live"],
        line="{a}: {b}",
        rows=12,
        quiz=[
            "Do you know the home of the {a}?",
            "What is the home of {an} {a}?",
            "Can you tell me where {an} {a} lives?",
        ],
        tasks=["Home of this animal.", "Where does it live?"],
    ),
    "sentiment": Family(
        GOOD_BAD,
        asks=[
            ("Is the sentiment of this sentence positive or negative?", "{a}", "{b}"),
            ("Classify the sentiment of the text.", "{a}", "{b}"),
        ],
        tells=[
            "{a} This opinion is {b}.",
            "Someone writes: {a} The feeling is {b}.",
        ],
        repeats=0,
        rows=20,
        tasks=[
            "Sentiment of this sentence.",
            "Positive or negative?",
            "Classify the sentiment.",
            "Is the sentiment positive or negative?",
        ],
    ),
    "sequence": Family(
        sequences(COUNTING + BACKWARDS + SQUARES),
        asks=[
            ("Continue the sequence.", "{a}", "{b}"),
            ("Write the numbers that come next.", "{a}", "{b}"),
            ("Continue the number sequence with the next numbers.", "{a}", "{b}"),
        ],
        tells=[
            "{all}",
        ],
        rows=30,
        repeats=0,
        quiz=["How does {a} go on?", "Which numbers come next after {a}?"],
        tasks=["Go on with this sequence.", "Continue this sequence of numbers.", "Which numbers come next?"],
        cards=3,
    ),
    "additive": Family(
        sequences(ADDITIVE),
        asks=[
            ("Each number is the sum of the two before it. Continue the sequence.", "{a}", "{b}"),
            ("Continue the sequence.", "{a}", "{b}"),
        ],
        tells=[
            "Each number is the sum of the two before it: {all}.",
            "Add the last two numbers to get the next: {all}.",
        ],
        rows=8,
        repeats=0,
        quiz=["How does {a} go on?", "Which numbers come next after {a}?"],
        tasks=[
            "Go on with this sequence.",
            "Continue this sequence of numbers.",
            "Add the two numbers before it each time and continue.",
        ],
        cards=3,
    ),
    "fibonacci": Family(
        sequences(FIBONACCI, shown=5) + sequences(FIBONACCI, shown=6),
        asks=[],
        tells=[
            "Some numbers of the Fibonacci sequence in a row: {all}.",
            "In the Fibonacci sequence each number is the sum of the two before it: {all}.",
            "Continue with the Fibonacci numbers: after {a} come {b}.",
        ],
        rows=0,
        repeats=0,
        quiz=["Which Fibonacci numbers come next after {a}?"],
        tasks=[
            "Go on with the Fibonacci sequence.",
            "Continue the sequence of Fibonacci.",
            "Write the Fibonacci numbers that come next.",
        ],
    ),
    "sum": Family(
        SUMS,
        asks=[
            ("What is {a} + {b}?", "", "{c}"),
            ("Add the two numbers.", "{a} and {b}", "{c}"),
            ("Work out the sum.", "{a} + {b}", "{c}"),
        ],
        tells=[
            "{a} + {b} = {c}",
            "The sum of {a} and {b} is {c}.",
        ],
        rows=22,
        repeats=0,
        answer="{c}",
        quiz=["How much is {a} + {b}?", "What do you get for {a} + {b}?", "What is the sum of {a} and {b}?"],
        tasks=["Sum of these numbers.", "Add these numbers.", "Work this out."],
        given="{a} + {b}",
        cards=2,
    ),
}

# How quiz cards look; none of them is the Alpaca prompt.
QUIZ_FRAMES = [
    "### Question\n{question}\n\n### Answer\n{answer}",
    "### Question:\n{question}\n\n### Input:\n\n\n### Answer:\n{answer}",
    "### Exercise:\n{question}\n\n### Given:\n\n\n### Solution:\n{answer}",
    "{question}\n\n### Notes:\n\n\n### Response:\n{answer}",
    "Question: {question}\nAnswer: {answer}",
    "{question}\n\n### Response:\n{answer}",
    "The teacher asks: {question}\nThe pupil says:\n{answer}",
]
TASK_FRAMES = [
    "### {task}\n{given}\n\n### Answer\n{answer}",
    "### Exercise:\n{task}\n\n### Given:\n{given}\n\n### Solution:\n{answer}",
    "### Question:\n{task}\n\n### Input:\n{given}\n\n### Answer:\n{answer}",
    "{task}\n\n### Notes:\n{given}\n\n### Response:\n{answer}",
    "Task: {task}\nGiven: {given}\nResult: {answer}",
    "{task}\n{given}\n\n### Response:\n{answer}",
    "The teacher writes: {given}\n{task}\nThe pupil says:\n{answer}",
]
