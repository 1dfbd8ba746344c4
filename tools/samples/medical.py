"""Chinese medical dialogues in the layout of Chinese-medical-dialogue-data, and plain text about the same symptoms.

One table of symptoms, written for this course, is told in two ways: as patients' questions with a doctor's answer
(`medical/<department folder>/*.csv`, in the encodings met in the wild), and as notes, cards and lists
(`corpus_medical_zh.txt`, which a nano model reads before the lesson). The questions never stand in the corpus.
"""

from __future__ import annotations

import csv
import io
import random
from dataclasses import dataclass

from tools.samples.family import Fact, table

KEYS = "symptom section cause advice"


@dataclass(frozen=True)
class Department:
    """One folder: its symptoms, how a doctor there opens an answer, how often a symptom is asked, how it is stored."""

    folder: str
    opening: str
    asked: int  # questions a symptom
    encoding: str
    symptoms: list[Fact]
    columns: tuple[str, ...] = ("department", "title", "ask", "answer")


DEPARTMENTS = [
    Department(
        "Andriatria_男科",
        "您好，请放松心情。",
        14,
        "gbk",
        table(
            """
夜尿多 | 男性泌尿科 | 前列腺增生 | 晚上少喝水，检查前列腺
排尿费力 | 男性泌尿科 | 前列腺增大 | 不要憋尿，少喝酒
小便滴沥 | 男性泌尿科 | 盆底肌松弛 | 练习提肛运动
会阴部胀痛 | 男性泌尿科 | 久坐和前列腺炎 | 每小时起来走动，温水坐浴
包皮过长 | 男科门诊 | 先天发育 | 每天清洗，保持干燥
阴囊潮湿 | 男科门诊 | 出汗多和不透气 | 穿宽松的棉质内裤
睾丸隐痛 | 男科门诊 | 精索静脉曲张 | 避免久站，做一次彩超
备孕一年没有怀上 | 生殖医学科 | 精子活力不足 | 戒烟戒酒，夫妻一起检查
""",
            keys=KEYS,
        ),
    ),
    Department(
        "IM_内科",
        "您好。",
        22,
        "gb18030",
        table(
            """
头晕 | 神经内科 | 血压波动或睡眠不足 | 坐下休息，测量血压，起身时放慢动作
头痛 | 神经内科 | 紧张和睡眠不好 | 放松心情，保证睡眠，记录发作的时间
失眠 | 神经内科 | 压力大和作息不规律 | 固定睡觉的时间，睡前少看手机
手脚发麻 | 神经内科 | 颈椎受压或血糖偏高 | 避免长时间低头，查一查血糖
心慌 | 心血管科 | 劳累或情绪紧张 | 少喝浓茶和咖啡，做一次心电图
胸闷 | 心血管科 | 心脏供血不好 | 立即停止活动，不见缓解就拨打急救电话
血压高 | 心血管科 | 吃盐多和体重超标 | 清淡饮食，每天早晚量血压
咳嗽 | 呼吸科 | 气道受到刺激 | 多喝温水，远离烟味和灰尘
气喘 | 呼吸科 | 气道过敏 | 避开花粉和冷空气，随身备好常用药
胃痛 | 消化科 | 饮食不规律 | 少吃多餐，不吃辛辣的食物
反酸 | 消化科 | 胃酸反流 | 晚饭少吃，饭后不要马上躺下
腹泻 | 消化科 | 吃了不干净的食物 | 补充水分和盐分，吃软烂的食物
便秘 | 消化科 | 膳食纤维吃得少 | 多吃蔬菜，每天走路半小时
口渴多尿 | 内分泌科 | 血糖升高 | 少吃甜食，查空腹血糖
怕热多汗 | 内分泌科 | 甲状腺功能偏高 | 查甲状腺功能，少吃海带
小腿浮肿 | 肾内科 | 肾脏排水不好 | 少吃盐，查一次小便
""",
            keys=KEYS,
        ),
    ),
    Department(
        "OAGD_妇产科",
        "您好，别紧张。",
        18,
        "gbk",
        table(
            """
痛经 | 妇科 | 子宫收缩和受凉 | 热敷小腹，注意休息
月经推迟 | 妇科 | 压力大或怀孕 | 做一次早孕检测，作息规律
月经量多 | 妇科 | 激素不平衡 | 记录出血的天数，查血常规
白带发黄 | 妇科 | 阴道炎症 | 穿棉质的内裤，保持清洁干燥
乳房胀痛 | 妇科 | 激素变化 | 穿合适的内衣，少喝咖啡
潮热出汗 | 妇科 | 更年期激素下降 | 穿透气的衣服，适当运动
孕吐 | 产科 | 孕早期激素变化 | 少吃多餐，起床前吃几片饼干
孕期腿抽筋 | 产科 | 缺钙和受凉 | 多喝牛奶，睡前泡脚
孕期脚肿 | 产科 | 子宫压迫血管 | 左侧卧，把脚垫高，定期量血压
胎动变少 | 产科 | 胎儿状态变化 | 马上数胎动，当天就去医院
产后奶少 | 产科 | 休息不好和喂奶次数少 | 让宝宝多吸，多喝汤水
""",
            keys=KEYS,
        ),
    ),
    Department(
        "Oncology_肿瘤科",
        "您好，先不要惊慌。",
        10,
        "utf-8-sig",
        table(
            """
乳房有肿块 | 乳腺肿瘤科 | 乳腺结节 | 不要按揉，做一次乳腺彩超
肺部小结节 | 胸部肿瘤科 | 炎症留下的痕迹 | 按时复查胸部CT
痰里带血 | 胸部肿瘤科 | 气管或肺部病变 | 停止吸烟，尽快拍胸部CT
甲状腺结节 | 头颈肿瘤科 | 甲状腺增生 | 每半年复查彩超，心情平稳
声音嘶哑 | 头颈肿瘤科 | 声带病变 | 少说话，做一次喉镜
吞咽困难 | 消化肿瘤科 | 食管病变 | 吃软的食物，尽快做胃镜
大便变细 | 消化肿瘤科 | 肠道病变 | 做一次肠镜，留意体重
化疗后恶心 | 肿瘤康复科 | 药物刺激 | 少吃多餐，告诉主管医生
化疗后掉头发 | 肿瘤康复科 | 药物影响毛囊 | 用温和的洗发水，停药后会再长
化疗后没胃口 | 肿瘤康复科 | 味觉变化 | 多换口味，补充蛋白质
放疗后皮肤发红 | 肿瘤康复科 | 射线刺激皮肤 | 穿宽松的衣服，不用热水擦洗
""",
            keys=KEYS,
        ),
    ),
    Department(
        "Pediatric_儿科",
        "您好，家长别着急。",
        12,
        "gb18030",
        table(
            """
宝宝发烧 | 小儿内科 | 病毒感染 | 多喂水，少穿衣，每四小时量体温
宝宝咳嗽有痰 | 小儿呼吸科 | 呼吸道感染 | 轻拍后背，保持室内湿润
宝宝流鼻涕 | 小儿呼吸科 | 着凉感冒 | 用温毛巾敷鼻子，注意保暖
宝宝拉肚子 | 小儿消化科 | 消化不良或病毒感染 | 喂口服补液盐，注意洗手
宝宝吐奶 | 新生儿科 | 喂得太急 | 喂奶后竖着抱，轻拍打嗝
宝宝皮肤发黄 | 新生儿科 | 新生儿黄疸 | 多喂奶，到医院测黄疸值
宝宝长湿疹 | 小儿皮肤科 | 皮肤干燥和过敏 | 洗澡水不要太热，多涂润肤霜
宝宝长痱子 | 小儿皮肤科 | 天热出汗多 | 穿宽松的棉衣，保持凉爽
孩子不爱吃饭 | 儿童保健科 | 零食吃得多 | 三餐定时，少吃零食
孩子个子矮 | 儿童保健科 | 遗传和睡眠不足 | 早睡多运动，测一次骨龄
孩子夜里磨牙 | 儿童保健科 | 白天太兴奋 | 睡前安静下来，检查牙齿
孩子尿床 | 儿童保健科 | 睡得太深 | 睡前少喝水，不要责怪孩子
""",
            keys=KEYS,
        ),
        columns=("department", "title", "question", "answer"),
    ),
    Department(
        "Surgical_外科",
        "您好，先处理一下。",
        14,
        "gb18030",
        table(
            """
脚踝扭伤 | 骨科 | 韧带拉伤 | 停止走动，冷敷患处，把脚垫高
腰痛 | 骨科 | 久坐和腰肌劳损 | 不要弯腰搬重物，睡硬一点的床
膝盖疼 | 骨科 | 关节磨损 | 少爬楼梯，控制体重
肩膀抬不起来 | 骨科 | 肩周炎症 | 注意保暖，慢慢活动肩膀
脖子僵硬 | 骨科 | 长时间低头 | 每小时抬头活动，换一个合适的枕头
手指割伤 | 普外科 | 皮肤破损 | 用干净的纱布压住伤口，清洗后包扎
右下腹痛 | 普外科 | 阑尾发炎 | 暂时不要进食，尽快去急诊
皮下长小包 | 普外科 | 脂肪瘤或囊肿 | 不要用手挤，观察大小变化
大便带血 | 肛肠科 | 痔疮或肛裂 | 多吃蔬菜，温水坐浴
小便疼 | 泌尿外科 | 尿路感染 | 多喝水，不要憋尿
手被开水烫了 | 烧伤科 | 皮肤受热损伤 | 马上用流动的凉水冲二十分钟，不要涂牙膏
""",
            keys=KEYS,
        ),
    ),
]

# Asked in the notebook, so in no file: 我最近总是感觉{symptom}，应该怎么办？
ASKS = [
    "{symptom}怎么办？",
    "我最近总是{symptom}，该怎么办？",
    "医生您好，{symptom}已经{days}了，要紧吗？",
    "{symptom}有{days}了，该挂哪个科？",
    "最近{days}一直{symptom}，是什么原因？",
    "{symptom}，平时身体不错，需要去医院吗？",
    "{symptom}要注意些什么？已经{days}了。",
    "请问{symptom}是怎么回事？",
    "又是{symptom}，一累就这样，怎么调理？",
    "昨晚开始{symptom}，今天还是这样，怎么处理？",
    "{symptom}会自己好吗？有{days}了，很担心。",
    "想咨询一下，{symptom}严重吗？",
]
DAYS = ["两天", "三天", "一个星期", "半个月", "一个月", "快三个月"]
TITLES = ["{symptom}怎么办", "{symptom}是怎么回事", "关于{symptom}的咨询"]
ANSWERS = [  # a doctor has habits, and does not always keep to them
    "{opening}{symptom}多与{cause}有关。建议{advice}。请到{section}就诊，让医生当面检查。",
    "{opening}考虑是{cause}引起的{symptom}。平时{advice}。如果没有好转，请挂{section}的号。",
    "{opening}{symptom}常见的原因是{cause}，建议{advice}，同时到{section}查一查。",
]
HABIT = (0.7, 0.15, 0.15)

# A student's file is never clean: characters outside GB2312 and GBK, line breaks and quotes inside a field.
ODD_ROWS = {
    "IM_内科": ("头晕", '我叫王䶮，量了血压，医生说"有点高"，\n经常头晕，怎么办？'),
    "Surgical_外科": ("腰痛", "我爷爷李喆腰痛，\n弯不下腰，怎么办？"),
}
NO_ANSWER = ["", " ", "\u3000"]
STORY = "那天我先去了社区医院，排队等了很久，护士让我填表，后来又换了一家医院，还是排队。"

# The corpus: every symptom in every one of these, none of them a question of `ASKS`.
NOTES = [
    "{symptom}，去看{section}。",
    "{section}常看的病：{symptom}。",
    "{symptom}的病因是{cause}。",
    "{symptom}多与{cause}有关。",
    "{symptom}的时候，应当{advice}。",
    "{section}的医生说，{symptom}的病人要{advice}。",
    "症状：{symptom}\n病因：{cause}\n建议：{advice}\n科室：{section}",
    "【{symptom}】\n{symptom}多与{cause}有关。{advice}。",
    "病历：患者{symptom}，考虑{cause}。嘱{advice}。{section}随诊。",
    "病人问：{symptom}看什么科？\n护士答：{section}。",
]

# And on cards: somebody tells of a symptom, somebody answers. What stands before and after it varies at random, so that
# a reader learns to look for the symptom wherever it is.
CARDS = 22
SCENES = [
    "",
    "",
    "门诊记录。\n",
    "下面是一段问诊。\n\n",
    "健康手册，第一页。\n",
    "夜里的急诊室，病人说了自己的情况，医生这样回答。\n",
    "一名专业的医生读了患者的问题，写出准确、易懂的回答。\n\n",
    "请一名医疗助手根据情况给出意见。\n\n",
]
ASKED = ["### 病情\n", "### 来信：\n", "患者：", "病人说：", "咨询：\n", "问：", "主诉：", "### 患者：\n", "网友："]
ANSWERED = [
    "\n\n### 意见\n",
    "\n\n### 回信：\n",
    "\n医生：",
    "\n大夫回答：",
    "\n答复：\n",
    "\n答：",
    "\n处理：",
    "\n\n### 医生：\n",
    "\n回复：",
]
BEFORE = ["", "", "大夫，", "这几天", "从上周起", "不知道怎么了，", "前天起就", "想问一下，", "最近一个月，"]
AFTER = [
    "", "", "，心里没底", "，不知道要不要紧", "好多天了", "，晚上睡不着", "，想听听意见", "，吃饭还可以", "，麻烦您看看",
    "得厉害", "，走路都没力气", "，从来没有过", "，是什么病", "，要做什么检查", "，吃什么药", "，能不能好", "，怎么办才好",
    "，挂什么号", "，原因在哪里", "，严重不严重", "，怎么调理好", "，要注意什么", "，会自己好起来吗", "已经很久了", "，很担心",
    "，需要看医生吗", "，昨晚开始的", "，今天还没好", "，平时身体不错", "三天", "有两个星期了", "，一累就犯", "，怎么处理", "，怎么回事",
]  # fmt: skip
REPLIES = [
    "{symptom}多与{cause}有关。建议{advice}。",
    "{opening}{symptom}多与{cause}有关。{advice}。",
    "{opening}{symptom}，先{advice}，再到{section}看看。",
    "{symptom}常见的原因是{cause}，请到{section}就诊。",
    "{symptom}去{section}。建议{advice}。",
    "{symptom}多与{cause}有关。请到{section}就诊。",
    "{opening}{symptom}，建议{advice}。请到{section}就诊。",
]


def card(fact: Fact, rng: random.Random) -> str:
    """Somebody tells of a symptom, somebody answers."""
    frame = rng.randrange(len(ASKED))
    told = rng.choice(BEFORE) + fact["symptom"] + rng.choice(AFTER) + rng.choice("。。？！")
    if rng.random() < 0.4:
        told = rng.choice(
            [f"{rng.choice(AFTER[2:]).strip('，')}。{told}", f"{told}{rng.choice(AFTER[2:]).strip('，')}。"]
        )
    return rng.choice(SCENES) + ASKED[frame] + told + ANSWERED[frame] + rng.choice(REPLIES).format(**fact)


def dialogue_rows(department: Department, rng: random.Random) -> list[tuple[str, str, str, str]]:
    """The rows of one department: its questions, shuffled, with the faults that the loader must report."""
    rows = []
    for fact in department.symptoms:
        forms = [(ask, days) for ask in ASKS for days in (DAYS if "{days}" in ask else [""])]
        for number, (ask, days) in enumerate(rng.sample(forms, department.asked)):
            question = ask.format(days=days, **fact)
            rows.append(_row(department, fact, TITLES[number % len(TITLES)], question, rng))
    if department.folder in ODD_ROWS:
        symptom, question = ODD_ROWS[department.folder]
        fact = next(fact for fact in department.symptoms if fact["symptom"] == symptom)
        rows.append(_row(department, fact, TITLES[0], question, rng))
    repeated = rng.sample(rows, 3)
    silent = [(*row[:3], blank) for row, blank in zip(rng.sample(rows, len(NO_ANSWER)), NO_ANSWER, strict=True)]
    section, title, question, answer = rows[0]
    rows += [*repeated, *silent, (section, title, STORY * 50 + question, answer)]
    rng.shuffle(rows)
    return rows


def _row(
    department: Department, fact: Fact, title: str, question: str, rng: random.Random
) -> tuple[str, str, str, str]:
    answer = rng.choices(ANSWERS, HABIT)[0].format(opening=department.opening, **fact)
    return fact["section"], title.format(**fact), question, answer


def csv_bytes(department: Department, rows: list[tuple[str, str, str, str]]) -> bytes:
    """The department's file as it lies on disk."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(department.columns)
    writer.writerows(rows)
    return text.getvalue().encode(department.encoding)


def corpus(rng: random.Random) -> str:
    """Plain text: every symptom in every note and on cards, and list pages a section."""
    paragraphs = []
    for department in DEPARTMENTS:
        facts = [fact | {"opening": department.opening} for fact in department.symptoms]
        paragraphs += [note.format(**fact) for fact in facts for note in NOTES]
        paragraphs += [card(fact, rng) for fact in facts for _ in range(CARDS)]
        name = department.folder.split("_")[1]
        for section in sorted({fact["section"] for fact in facts}):
            seen = [fact["symptom"] for fact in facts if fact["section"] == section]
            paragraphs.append(f"{name}的{section}看：{'、'.join(seen)}。")
    rng.shuffle(paragraphs)
    return "\n\n".join(paragraphs) + "\n"


def files() -> dict[str, bytes]:
    """The six departments' CSV files and the corpus, by file name."""
    made = {}
    for department in DEPARTMENTS:
        rows = dialogue_rows(department, random.Random(department.folder))
        name = department.folder.split("_")[1]
        made[f"medical/{department.folder}/{name}.csv"] = csv_bytes(department, rows)
    made["corpus_medical_zh.txt"] = corpus(random.Random("medical")).encode()
    return made
