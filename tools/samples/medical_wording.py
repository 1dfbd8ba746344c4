"""How the medical tables are told in English and in Chinese: templates, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """The templates of one language; `medical_o1.Teller.facts` says what may stand in braces."""

    any: str  # what the table writes when a condition meets everybody
    anyone: list[str]
    pronouns: dict[str, str]
    # rows in medical-o1's format
    patients: list[str]
    asks: dict[str, list[str]]
    openings: list[str]
    links: list[str]
    checks: list[str]
    excluded: str
    conclusions: dict[str, str]
    closings: list[str]
    responses: dict[str, str]
    # plain text
    tells: list[str]
    cards: dict[str, list[str]]
    # chats in R1's manner; a layout ends where the thinking begins
    layouts: list[str]
    r1_patients: list[str]
    r1_asks: dict[str, list[str]]
    r1_openings: list[str]
    r1_thoughts: list[str]
    r1_answers: dict[str, str]


EN = Wording(
    any="any",
    anyone=["man", "woman"],
    pronouns={"man": "he", "woman": "she"},
    patients=[
        "A {age}-year-old {patient} {one} and {two}. ",
        "A {patient} aged {age} {two}. On questioning, {he} also {one}. ",
        "At the clinic, a {age}-year-old {patient} {one}; {he} also {two}. ",
    ],
    asks={
        "diagnosis": ["What is the most likely diagnosis?", "Which condition best fits this picture?"],
        "test": ["What would {test} most likely show?", "Based on these findings, what would {test} reveal?"],
        "reason": ["What best explains these findings?", "What is going on in the body of this patient?"],
    },
    openings=[
        "Okay, a {age}-year-old {patient}. What do these findings have in common?",
        "Let's see. Which condition brings these findings together?",
        "First, what do the findings point to?",
    ],
    links=[
        "Taken together, they point to {name}. In {name}, {why}.",
        "They fit {name}. In {name}, {why}.",
        "This is how {name} shows itself. In {name}, {why}.",
    ],
    checks=[
        "Could it be {other}? Then {otherwhy}. That does not fit here.",
        "I should also think of {other}, but nothing here speaks for it.",
    ],
    excluded="Could it be {name}? Then the patient would be someone who {one}, because {why}. That does not fit here.",
    conclusions={
        "diagnosis": "The question is what it is. The diagnosis is {name}.",
        "test": "The question is what the test shows. In {name}, {test} shows {result}.",
        "reason": "The question is what explains it. In {name}, {why}.",
    },
    closings=["Yes, that makes sense.", "I am confident in that.", "Everything fits."],
    responses={
        "diagnosis": "The most likely diagnosis is **{key}**. In {name}, {why}.",
        "test": "The findings point to {name}. In {name}, {test} shows **{key}**.",
        "reason": "The findings point to {name}. In {name}, **{key}**.",
    },
    tells=[
        "{Name}: the patient {one} and {two}.",
        "A {patient} who {one} and {two} probably has {name}.",
        "When a patient {one}, think of {name}. The reason is that {why}.",
        "In {name}, {why}.",
        "In {name}, {test} shows {result}.",
        "If a patient {two} and {test} shows {result}, the cause is {name}.",
    ],
    cards={
        "diagnosis": [
            "Case: {one}; {two}.\nDiagnosis: {name}",
            "Finding: {two}\nThink of: {name}",
        ],
        "test": [
            "Condition: {name}\nTest: {test}\nResult: {result}",
            "Case: {one}; {two}.\nTest: {test}\nResult: {result}",
        ],
        "reason": [
            "Condition: {name}\nMechanism: {why}",
            "Case: {one}; {two}.\nMechanism: {why}",
        ],
    },
    layouts=[
        "<｜User｜>{question}<｜Assistant｜><think>\n",
        "<｜User｜>{question}<｜Assistant｜><think>\n",
        "<｜User｜>{question} Think step by step.<｜Assistant｜><think>\n",
        "Below is a question from a medical exam. Think first.\n\n### Question:\n{question}\n\n### Answer:\n<think>\n",
        "### Instruction:\nAnswer the medical question step by step.\n\n### Case:\n{question}\n\n### Response:\n<think>\n",
        "### Instruction:\nYou are a physician, experienced in diagnosis.\n\nQuestion: {question}\n\nResponse:\n<think>\n",
    ],
    r1_patients=[
        "My patient, {age}, {one} and {two}. ",
        "Patient, {age} years old, {two}, {one}. ",
        "I have a {patient} here of {age} years. {He} {two}. {He} also {one}. ",
        "{One}; {two}: that is my patient, a {patient} of {age}. ",
        "A {age}-year-old {patient} came today because {he} {one}. I also found that {he} {two}. ",
        "There is this {patient} who {two} and who {one}, aged {age}. ",
    ],
    r1_asks={
        "diagnosis": ["What is it?", "What does the patient have?", "Name the diagnosis."],
        "test": ["What do you expect from {test}?", "{Test}: what will it show?", "What do I find with {test}?"],
        "reason": ["Why is that?", "What causes this?", "Explain these findings."],
    },
    r1_openings=["Okay, so the patient {one}. Let me think.", "Alright, I need to figure this out. The patient {two}."],
    r1_thoughts=[
        "Hmm, {two}. I remember that this can be {name}, or maybe {other}.",
        "Wait, in {other}, {otherwhy}. That does not quite fit. Or does it?",
        "Let me go over it again. The patient {one} and {two}.",
        "Alternatively, it could be {third}, where the patient {thirdone}.",
        "I am not sure. Actually, wait. In {name}, {why}.",
        "Hmm, and {test}? Perhaps {otherresult}. No, wait, maybe {result}.",
        "But if it were {other}, the patient would be someone who {otherone}. Hmm.",
        "I think I should consider {name} as well. Let me check that again.",
    ],
    r1_answers={
        "diagnosis": "It is probably **{key}**.",
        "test": "I would expect **{key}**.",
        "reason": "Probably **{key}**.",
    },
)

ZH = Wording(
    any="不限",
    anyone=["男", "女"],
    pronouns={"男": "他", "女": "她"},
    patients=[
        "患者，{patient}，{age}岁，{one}，{two}。",
        "{patient}性患者，{age}岁，{two}。追问病史，{he}还{one}。",
        "门诊来了一位{age}岁的{patient}患者，{one}，而且{two}。",
    ],
    asks={
        "diagnosis": ["最可能的诊断是什么？", "最符合哪种疾病？"],
        "test": ["{test}最可能显示什么？", "根据这些表现，{test}会有什么结果？"],
        "reason": ["最能解释这些表现的是什么？", "患者体内发生了什么？"],
    },
    openings=[
        "好，{age}岁的{patient}患者。这些表现有什么共同点？",
        "先想想，什么病能把这些表现串起来？",
        "先看这些表现指向哪里。",
    ],
    links=[
        "合在一起看，指向{name}。{name}是因为{why}。",
        "这很像{name}。{name}是因为{why}。",
        "这正是{name}的样子。{name}是因为{why}。",
    ],
    checks=[
        "会不会是{other}？那样的话是{otherwhy}，和这里对不上。",
        "也要想到{other}，但这里没有支持它的表现。",
    ],
    excluded="会不会是{name}？那样的话应该{one}，因为{why}，和这里对不上。",
    conclusions={
        "diagnosis": "问题问的是诊断。诊断是{name}。",
        "test": "问题问的是检查。{name}做{test}，结果是{result}。",
        "reason": "问题问的是原因。{name}是因为{why}。",
    },
    closings=["嗯，说得通。", "这样就都对上了。", "这个结论比较有把握。"],
    responses={
        "diagnosis": "最可能的诊断是**{key}**。{name}是因为{why}。",
        "test": "这些表现符合{name}。{name}做{test}，结果是**{key}**。",
        "reason": "这些表现符合{name}。{name}是因为**{key}**。",
    },
    tells=[
        "{name}：患者{one}，{two}。",
        "{one}，{two}，多半是{name}。",
        "遇到{one}的患者，要想到{name}，原因是{why}。",
        "{name}是因为{why}。",
        "{name}做{test}，结果是{result}。",
        "患者{two}，{test}显示{result}，病因是{name}。",
    ],
    cards={
        "diagnosis": ["病例：{one}；{two}。\n诊断：{name}", "表现：{two}\n想到：{name}"],
        "test": [
            "疾病：{name}\n检查：{test}\n结果：{result}",
            "病例：{one}；{two}。\n检查：{test}\n结果：{result}",
        ],
        "reason": ["疾病：{name}\n机制：{why}", "病例：{one}；{two}。\n机制：{why}"],
    },
    layouts=[
        "<｜User｜>{question}<｜Assistant｜><think>\n",
        "<｜User｜>{question}<｜Assistant｜><think>\n",
        "<｜User｜>{question}请一步一步想。<｜Assistant｜><think>\n",
        "下面是一道医学考题。请先想清楚。\n\n### 问题：\n{question}\n\n### 答案：\n<think>\n",
        "### 任务：\n请一步一步回答医学问题。\n\n### 病例：\n{question}\n\n### 回答：\n<think>\n",
        "### 任务：\n你是一位临床经验丰富的医生，擅长诊断。\n\n问题：{question}\n\n回答：\n<think>\n",
    ],
    r1_patients=[
        "我的患者{age}岁，{one}，{two}。",
        "患者{age}岁，{two}，{one}。",
        "有个{age}岁的{patient}患者，{two}。{he}还{one}。",
        "{one}；{two}。{patient}，{age}岁。",
        "今天来了一位{patient}患者，{one}，查体又发现{two}，{age}岁。",
        "{age}岁，{patient}，主诉{one}，另外{two}。",
    ],
    r1_asks={
        "diagnosis": ["是什么病？", "得了什么病？", "请给出诊断。"],
        "test": ["{test}会怎样？", "做{test}会看到什么？", "{test}能查出什么？"],
        "reason": ["为什么会这样？", "怎么引起的？", "请解释这些表现。"],
    },
    r1_openings=["好，患者{one}。让我想想。", "嗯，我得弄清楚。患者{two}。"],
    r1_thoughts=[
        "嗯，{two}。我记得这可能是{name}，也可能是{other}。",
        "等等，{other}是因为{otherwhy}。好像不太对，还是说对？",
        "再理一遍。患者{one}，{two}。",
        "或者，会不会是{third}，{thirdone}。",
        "我不确定。等等，{name}是因为{why}。",
        "那{test}呢？也许{otherresult}。不对，等等，也许{result}。",
        "但如果是{other}，应该{otherone}。嗯。",
        "我觉得还要考虑{name}。再检查一遍。",
    ],
    r1_answers={
        "diagnosis": "可能是**{key}**。",
        "test": "估计是**{key}**。",
        "reason": "可能是**{key}**。",
    },
)
