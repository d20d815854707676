"""The 64 texts of the parity tests, written for this project. A tuple is a pair of texts."""

SENTENCES = [
    "",
    "a",
    "Hello, world!",
    "The kettle whistled while nobody was in the kitchen.",
    "Rain on a tin roof sounds louder at night than it does by day.",
    "请问这列火车几点到站？",
    "今天的天气很好，我们一起去公园散步吧。",
    "naïve café, jalapeño, Zürich, façade, Ångström, œuvre, Łódź",
    "I can't believe it's only 3.5% — that's £12.99, isn't it?",
    "🙂🚀 ship it! 👩‍👩‍👧‍👦 🇨🇳",
    "   leading, trailing   and\tinner \n white space   ",
    "UPPER lower MiXeD cAsE WORDS",
    "http://example.org/a/b?c=d&e=f#g and mail to someone@example.org",
    "0 1 22 333 4444 55555 666666 7777777 3.14159 -273.15 1e-12 0xFF",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 120,
    "!!! ??? ... ,,, ;;; ::: --- ___ *** /// \\\\\\ ((( ))) [[[ ]]] {{{ }}} <<< >>>",
    "The [MASK] of the story is [UNK] to [SEP] us, said the [CLS].",
    "ﬁne ligatures, ｆｕｌｌｗｉｄｔｈ letters, ½ cup, x² + y²",
    "العربية من اليمين إلى اليسار",
    "Привет, как дела? Всё хорошо, спасибо.",
    "こんにちは、世界。カタカナとひらがなと漢字。",
    "안녕하세요 세계",
    "हिन्दी में एक वाक्य",
    "Ελληνικά γράμματα: άλφα, βήτα, γάμμα",
    "สวัสดีชาวโลก",
    "zero\u200bwidth\u200dand\u00adsoft hyphen\ufeff",
    "control\x01characters\x7fare\u0000dropped",
    "tab\tseparated\tcells\tin\ta\trow",
    "e\u0301 and é are the same letter in two spellings",
    "“Curly quotes” and ‘single ones’ – en dash, — em dash, … ellipsis",
    "the the the the the the the the the the the the the the the the",
    "Our bicycle shop opens at nine, closes at six, and never on a Sunday.",
    "She planted forty tulip bulbs along the fence and forgot where.",
    "If the ferry is late again, take the bridge; it adds only ten minutes.",
    "An old map of the harbour shows a lighthouse that was never built.",
    "He measured twice, cut once, and still the shelf was too short.",
    "The committee postponed its decision because the report had two page sevens.",
    "Copper turns green, iron turns red, and silver simply turns dull.",
    "Nothing in the manual explains what the third button is for.",
    "A patient gardener weeds before breakfast, while the soil is damp and the snails are slow.",
    "My neighbour's parrot has learned to imitate the microwave, so dinner is announced twice.",
    "From the tower you can see two rivers meet, one brown and one almost blue.",
    "这台打印机总是卡纸，换了新的纸也没有用。",
    "他把钥匙忘在办公室了，所以只好在门口等了两个小时。",
    "混合 English 与中文 in one 句子, with 123 数字。",
    "龘靐齉 rare characters 𠮷野家",
    "The recipe asks for three eggs, two cups of flour, a pinch of salt and more patience than most people "
    "have on a Tuesday evening, but the result keeps for a week and tastes better on the third day.",
    "When the last train had left, the station master swept the platform, switched off the lamps one after "
    "the other, locked the waiting room, and walked home along the rails, counting the sleepers as he had "
    "done every night for thirty years.",
    "Sensors along the dam report level, temperature and vibration every ten seconds. A small program at the "
    "office compares each value with the same hour of last year. Most days it has nothing to say. On the day "
    "it finally spoke, everybody assumed that the program was wrong, and for once it was.",
    "城市的图书馆在周末开放到晚上九点。借书证可以在一楼服务台办理，需要身份证和一张照片。每人每次最多可以借十本书，"
    "借期三十天，可以续借一次。如果丢失图书，请按照原价赔偿。",
    ("How do I change the oil?", "The oil is drained through the plug under the engine."),
    ("Is the museum open on Mondays?", "It is closed on Mondays."),
    ("A boy kicks a ball across the yard.", "A child is playing outside."),
    ("short", ""),
    ("", "only the second text has words"),
    ("怎么修改收货地址？", "在订单详情里可以修改地址。"),
    ("Which metal is liquid?", "Mercury is liquid at room temperature; gallium melts in the hand; all the other "
     "common metals are solid until they are much hotter than that."),
    ("The same sentence.", "The same sentence."),
    ("Émile mange une crêpe.", "Emile eats a pancake 🥞."),
    ("one two three four five six seven eight nine ten eleven twelve", "twelve eleven ten nine"),
    "Twelve sailors, eleven hammocks: the arithmetic of a long voyage is settled on the first night.",
    "Please hold the line; your call is important to us, though perhaps not as important as lunch.",
]

# Most words are one token; `make_goldens.py` takes words from this passage, over and over, until there are 512 tokens.
PASSAGE = (
    "The valley had one road and one shop and the shop sold everything that the road could bring . In spring "
    "the river rose over the lower fields and left a grey skin of mud on the grass . In summer the dust stood "
    "behind every cart like a second , slower cart . People said that the valley was quiet , but it was only "
    "far away ; at night you could hear the mill , the dogs , the wind in the wires and , if the air was cold "
    "enough , the train on the other side of the hill . "
)
