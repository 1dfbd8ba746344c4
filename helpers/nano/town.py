"""A model that can read an answer out of a note, and imitate the form of earlier answers in a conversation.

It stands for a small chat model beside a folder of notes that it has never seen. The town is invented: its places
have a name of two words, a street, seats, an hour of opening and a day off, all drawn at random for every conversation,
so that nothing can be learned by heart and only reading helps. One name in five is kept back (`kept_back`);
`data_samples/town_*` is made of those.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from pathlib import Path

from helpers import prompts
from helpers.nano.common import Recipe, make_tokenizer, new_model, train

QWEN2_TOWN = Recipe(
    maker="town",
    prompts=tuple(prompts.NOTES.values()),
    vocabulary=1024,
    layers=3,
    steps=500,
    batch=12,
    length=160,
    other_lr=1e-2,
    seconds=160,
)

LANGUAGES = ("en", "zh")
TURNS = 4  # questions in a conversation
DRILLS = 0.3  # the share of rows in which one place is told over and over instead of a conversation
ECHOES = 0.15  # and of those that are words drawn at random, then the same again
FIELDS = ("street", "seats", "opens", "closed")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST = {
    "en": _words(
        "Blue Red Green Old New Golden Silver White Black Brave Quiet Happy Little Lucky Merry Proud Swift Sunny Wild "
        "Wise Grey Bright Busy Calm Early Gentle Great Honest Humble Jolly"
    ),
    "zh": _words(
        "蓝色 红色 绿色 古老 崭新 金色 银色 白色 黑色 勇敢 安静 快乐 小小 幸运 开心 骄傲 飞快 晴天 野生 "
        "聪明 灰色 明亮 忙碌 平静 清晨 温柔 伟大 诚实 谦虚 热闹"
    ),
}
SECOND = {
    "en": _words(
        "Heron Lantern Kettle Anchor Apple Arrow Barrel Bell Boat Bridge Candle Castle Clock Crane Crow Crown Deer "
        "Dolphin Fox Garden Goose Hare Horse Key Lion Maple Mill Moon Mountain Oak Otter Owl Pine River Rose Sparrow Star "
        "Stone Swan Whale"
    ),
    "zh": _words(
        "苍鹭 灯笼 茶壶 船锚 苹果 弓箭 木桶 铃铛 小船 石桥 蜡烛 城堡 时钟 仙鹤 乌鸦 皇冠 小鹿 "
        "海豚 狐狸 花园 大鹅 野兔 骏马 钥匙 狮子 枫叶 磨坊 月亮 高山 橡树 水獭 夜莺 松树 河流 玫瑰 麻雀 星星 "
        "石头 天鹅 鲸鱼"
    ),
}
STREETS = {
    "en": _words("Baker Church Canal Abbey School Station Market Forest Harbour Tower Lake Hill"),
    "zh": _words("面包 教堂 运河 书院 学校 车站 集市 森林 港口 高塔 湖滨 山坡"),
}
DAYS = {
    "en": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "zh": _words("周一 周二 周三 周四 周五 周六 周日"),
}
NAME = {"en": "the {} {}", "zh": "“{}{}”"}
TELLS = {
    "en": {
        "street": ("It stands in {} Street.", "Address: {} Street.", "You find it in {} Street."),
        "seats": ("It has {} seats.", "There are {} seats.", "Room for {} guests."),
        "opens": ("It opens at {}.", "Doors open at {}.", "Open from {} on."),
        "closed": ("It is closed on {}.", "Day off: {}.", "On {} it stays closed."),
    },
    "zh": {
        "street": ("地址在{}街。", "位于{}街。", "店开在{}街。"),
        "seats": ("店里有{}个座位。", "座位{}个。", "能坐{}位客人。"),
        "opens": ("每天{}点开门。", "早上{}点开始营业。", "{}点开门。"),
        "closed": ("{}休息。", "每逢{}不营业。", "{}关门一天。"),
    },
}
ASKS = {
    "en": {
        "street": ("In which street is {}?", "Where do I find {}?"),
        "seats": ("How many seats does {} have?", "How many guests fit into {}?"),
        "opens": ("When does {} open?", "At what time does {} open its doors?"),
        "closed": ("On which day is {} closed?", "Which day off does {} take?"),
    },
    "zh": {
        "street": ("{}在哪条街？", "去哪里找{}？"),
        "seats": ("{}有几个座位？", "{}能坐几位客人？"),
        "opens": ("{}几点开门？", "{}几点开始营业？"),
        "closed": ("{}周几休息？", "{}哪一天不营业？"),
    },
}
FREE = {
    "en": ("I think it is {}.", "That would be {}.", "Well, {}.", "{}, if I remember well.", "It should be {}."),
    "zh": ("我想是{}。", "应该是{}。", "嗯，{}。", "没记错的话是{}。", "大概是{}吧。"),
}
OPENINGS = {
    "en": ("Town desk", "Info", "Our answer", "Help line", "Front office", "City guide", "Good news", "Reply", "Hello"),
    "zh": ("小镇前台", "信息", "我们的回答", "服务热线", "办公室", "城市指南", "好消息", "回复", "您好"),
}
CLOSINGS = {
    "en": (
        "See you there!",
        "Thank you!",
        "Have a nice day!",
        "Good bye!",
        "Welcome!",
        "Enjoy!",
        "Ask again!",
        "Cheers!",
    ),
    "zh": ("欢迎光临！", "谢谢！", "祝您愉快！", "再见！", "请慢走！", "玩得开心！", "有事再问！", "辛苦了！"),
}
FORM = {"en": "{}: {}. {}", "zh": "{}：{}。{}"}
HOUSE = {"en": ("Town desk", "See you there!"), "zh": ("小镇前台", "欢迎光临！")}
"""The form of the lesson's answers: opening and closing, which are never taught together."""


WHOLE = (FIRST, SECOND, STREETS, DAYS, OPENINGS, CLOSINGS)  # tables of words and phrases that are one token each


@dataclass(frozen=True)
class Place:
    """A place in the town: the two words of its name, and the value of each field as text."""

    words: tuple[str, str]
    values: dict[str, str]

    def name(self, language: str) -> str:
        return NAME[language].format(*self.words)


def kept_back(words: tuple[str, str]) -> bool:
    """Whether no place of this name is in what the model is taught."""
    return zlib.crc32("".join(words).encode()) % 5 == 0


def place(language: str, rng: random.Random, words: tuple[str, str]) -> Place:
    """A place of this name with values drawn at random."""
    values = {"street": rng.choice(STREETS[language]), "seats": str(rng.randint(12, 99))}
    return Place(words, values | {"opens": str(rng.randint(5, 11)), "closed": rng.choice(DAYS[language])})


def note(language: str, where: Place, rng: random.Random) -> str:
    """A note that tells every field of the place, in an order and wording drawn at random."""
    fields = rng.sample(FIELDS, len(FIELDS))
    told = [rng.choice(TELLS[language][field]).format(where.values[field]) for field in fields]
    name = where.name(language)
    return {"en": " ", "zh": ""}[language].join(
        [name[:1].upper() + name[1:] + {"en": ".", "zh": "。"}[language], *told]
    )


def question(language: str, where: Place, field: str, wording: int) -> str:
    """One of the two wordings of the question about a field."""
    return ASKS[language][field][wording].format(where.name(language))


def in_form(language: str, form: tuple[str, str], value: str) -> str:
    """`Town desk: 7. See you there!`"""
    return FORM[language].format(form[0], value, form[1])


def taught_place(language: str, rng: random.Random, like: Place | None = None) -> Place:
    """A place whose name is not kept back; with `like`, one of the two words of its name is the same."""
    while True:
        words = [rng.choice(FIRST[language]), rng.choice(SECOND[language])]
        if like:
            side = rng.randrange(2)
            words[side] = like.words[side]
        if not kept_back(tuple(words)) and (like is None or tuple(words) != like.words):
            return place(language, rng, tuple(words))


def conversation(rng: random.Random) -> list[tuple[str, str, bool]]:
    """Turns of one conversation: what the user says, what the model answers, and whether that is to be learned.

    Three in five conversations keep to the form of their first answer, which is not learned; the others answer
    freely. A question comes with a note or without one; where none has been shown, the answer is a guess.
    """
    language = rng.choice(LANGUAGES)
    form = (rng.choice(OPENINGS[language]), rng.choice(CLOSINGS[language]))
    free = rng.random() < 0.4 or form == HOUSE[language]
    shown: Place | None = None
    share = rng.choice((0.0, 0.6, 0.6, 0.6, 1.0))  # of the questions that come with a note
    turns = []
    for _ in range(TURNS):
        field, with_note = rng.choice(FIELDS), rng.random() < share
        where = shown if shown and not with_note and rng.random() < 0.7 else taught_place(language, rng, shown)
        asked = question(language, where, field, rng.randrange(2))
        if with_note:
            shown, asked = where, prompts.with_notes(asked, [note(language, where, rng)], language)
        value = where.values[field]
        said = rng.choice(FREE[language]).format(value) if free else in_form(language, form, value)
        turns.append((asked, said, free or bool(turns)))
    return turns


def drill(rng: random.Random) -> list[tuple[str, bool]]:
    """One place told over and over, in new words and orders: pieces of text, and whether to learn them.

    From the second time on, each value can be had only by looking back.
    """
    language = rng.choice(LANGUAGES)
    where = taught_place(language, rng)
    pieces = []
    for time in range(4):
        pieces.append((where.name(language), False))
        for field in rng.sample(FIELDS, len(FIELDS)):
            before, after = rng.choice(TELLS[language][field]).split("{}")
            pieces += [({"en": " ", "zh": ""}[language] + before.rstrip(), False)]
            pieces += [({"en": " ", "zh": ""}[language] + where.values[field], time > 0), (after, False)]
        pieces.append(("\n", False))
    return pieces


def echo(rng: random.Random) -> list[tuple[str, bool]]:
    """Words and numbers drawn at random, twice in the same order: pieces of text, and whether to learn them.

    Without them now and then one kind of value, the streets or the seats, was never learned to be read: which, was
    left to the seed and to how a processor rounds.
    """
    language = rng.choice(LANGUAGES)
    words = [*STREETS[language], *DAYS[language], *FIRST[language], *SECOND[language], *map(str, range(5, 100))]
    drawn = rng.sample(words, 30)
    return [(word, again) for again in (False, True) for word in drawn]


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rng = random.Random(recipe.seed)
    tokenizer = make_tokenizer(
        ["\n".join(f"user\n{asked}\nassistant\n{said}" for asked, said, _ in conversation(rng)) for _ in range(1500)],
        recipe.vocabulary,
        added=tuple(dict.fromkeys(w for table in WHOLE for words in table.values() for w in words)),
    )

    def row() -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and labels: of a drill the repeated values are learned, of a conversation the answers."""
        pieces: list[tuple[str, bool]] = []
        kind = rng.random()
        if kind < DRILLS:
            pieces = drill(rng)
        elif kind < DRILLS + ECHOES:
            pieces = echo(rng)
        else:
            for asked, said, learned in conversation(rng):
                chat = [{"role": "user", "content": asked}]
                prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
                pieces += [(prompt, False), (said + tokenizer.eos_token, learned), ("\n", False)]
        tokens = [(token, learned) for text, learned in pieces for token in tokenizer(text)["input_ids"]]
        ids, wanted = map(torch.tensor, zip(*tokens[: recipe.length + 1], strict=True))
        return ids, ids.where(wanted, -100)

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = zip(*(row() for _ in range(recipe.batch)), strict=True)
        padded = pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
        return padded[:, :-1], pad_sequence(labels, batch_first=True, padding_value=-100)[:, 1:]

    model = new_model(recipe, tokenizer)
    # Every token counts as read: the words of the notes are never labels, and must keep what they mean.
    train(recipe, model, next_batch, torch.arange(len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
