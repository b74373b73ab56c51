"""The words of the generated text: gender and number, both scripts, oblique forms, and which are English loans.

A line of a noun table: class, Devanagari, Roman, and the oblique forms where they differ. Class: m or f, then s or p,
or 1 for "I". `*` before the Roman: an English loan, written in Latin letters in mixed text. `_` stands for a space.
"""

from __future__ import annotations

from dataclasses import dataclass

SCRIPTS = ("devanagari", "roman", "mixed")
CLASSES = ("ms", "mp", "fs", "fp", "m1", "f1")
Forms = tuple[str, str, str]  # in the order of SCRIPTS


def forms(devanagari: str, roman: str) -> Forms:
    devanagari, roman = devanagari.replace("_", " "), roman.replace("_", " ")
    latin = roman.removeprefix("*")
    return devanagari, latin, latin if roman.startswith("*") else devanagari


@dataclass(frozen=True)
class Noun:
    agrees: str  # one of CLASSES
    direct: Forms
    oblique: Forms  # before a postposition
    ergative: Forms  # subject of a transitive verb in the perfective
    dative: Forms


def _join(first: Forms, devanagari: str, roman: str) -> Forms:
    return f"{first[0]} {devanagari}", f"{first[1]} {roman}", f"{first[2]} {devanagari}"


def _nouns(table: str) -> tuple[Noun, ...]:
    found = []
    for line in table.strip().splitlines():
        agrees, devanagari, roman, *other = line.split()
        direct = forms(devanagari, roman)
        oblique = forms(*other) if other else direct
        found.append(Noun(agrees, direct, oblique, _join(oblique, "ने", "ne"), _join(oblique, "को", "ko")))
    return tuple(found)


def _pronouns(table: str) -> tuple[Noun, ...]:
    found = []
    for line in table.strip().splitlines():
        agrees, *rest = line.split()
        direct, ergative, dative = (forms(*rest[i : i + 2]) for i in (0, 2, 4))
        found.append(Noun(agrees, direct, direct, ergative, dative))
    return tuple(found)


def _slots(table: str) -> dict[str, tuple[Forms, ...]]:
    """Lines of `slot: word word, word word, ...`; a slot may go on in the next line."""
    found: dict[str, tuple[Forms, ...]] = {}
    for line in table.strip().splitlines():
        name, _, listed = line.partition(": ")
        found[name] = (*found.get(name, ()), *(forms(*pair.split()) for pair in listed.split(",")))
    return found


PRONOUNS = _pronouns("""
m1 मैं main मैंने maine मुझे mujhe
f1 मैं main मैंने maine मुझे mujhe
mp हम hum हमने humne हमें humein
ms वह woh उसने usne उसे use
fs वह woh उसने usne उसे use
mp वे ve उन्होंने unhone उन्हें unhein
mp आप aap आपने aapne आपको aapko
""")
PEOPLE = _nouns("""
ms रवि ravi
ms मोहन mohan
ms अमित amit
ms राहुल rahul
ms सुरेश suresh
ms लड़का ladka लड़के ladke
fs सीता sita
fs पूजा pooja
fs नेहा neha
fs कविता kavita
fs अंजलि anjali
fs लड़की ladki
mp बच्चे bachche बच्चों bachchon
mp पड़ोसी padosi पड़ोसियों padosiyon
fp लड़कियाँ ladkiyan लड़कियों ladkiyon
""")
KIN = _nouns("""
ms भाई bhai
ms बेटा beta बेटे bete
ms दोस्त dost
fs बहन behen
fs माँ maa
fs बेटी beti
fs दादी dadi
mp पिताजी pitaji
mp दादाजी dadaji
mp चाचाजी chachaji
fp बेटियाँ betiyan बेटियों betiyon
fp सहेलियाँ saheliyan सहेलियों saheliyon
""")
THINGS = _nouns("""
fs किताब kitab
fs साड़ी saree
fs घड़ी ghadi
fs कुर्सी kursi
fs छतरी chhatri
ms कुर्ता kurta कुर्ते kurte
ms थैला thaila थैले thaile
ms पंखा pankha पंखे pankhe
ms मोबाइल *mobile
ms लैपटॉप *laptop
ms बैग *bag
mp जूते joote जूतों jooton
mp खिलौने khilaune खिलौनों khilaunon
mp बरतन bartan बरतनों bartanon
fp चूड़ियाँ chudiyan चूड़ियों chudiyon
fp चप्पलें chappalein चप्पलों chappalon
""")
DISHES = _nouns("""
ms हलवा halwa हलवे halwe
ms रायता raita रायते raite
ms पुलाव pulao
ms पिज़्ज़ा *pizza
ms पास्ता *pasta
fs खीर kheer
fs दाल daal
fs सब्ज़ी sabzi
fs खिचड़ी khichdi
mp समोसे samose समोसों samoson
mp पराठे parathe पराठों parathon
mp नूडल्स *noodles
fp जलेबियाँ jalebiyan जलेबियों jalebiyon
fp पूरियाँ pooriyan पूरियों pooriyon
""")
FRUITS = _nouns("""
ms आम aam
ms सेब seb
ms तरबूज़ tarbooz
mp केले kele केलों kelon
mp संतरे santare संतरों santaron
fp लीचियाँ lichiyan लीचियों lichiyon
""")
DRINKS = _nouns("""
ms दूध doodh
ms पानी paani
ms शरबत sharbat
ms जूस *juice
ms सूप *soup
fs चाय chai
fs लस्सी lassi
fs कॉफ़ी *coffee
""")
SUBJECTS = _nouns("""
ms गणित ganit
ms इतिहास itihas
ms विज्ञान vigyan
ms भूगोल bhugol
ms कंप्यूटर *computer
fs हिंदी hindi
fs अंग्रेज़ी angrezi
fs संस्कृत sanskrit
""")
WEATHERS = _nouns("""
fs बारिश baarish
fs ठंड thand
fs गरमी garmi
fs धूप dhoop
fs उमस umas
ms कोहरा kohra कोहरे kohre
""")

WORDS = _slots("""
shop: बाज़ार bazaar, दुकान dukaan, मेले mele, मॉल *mall, सुपरमार्केट *supermarket
place: बाज़ार bazaar, घर ghar, मंदिर mandir, गाँव gaon, शहर shehar, अस्पताल aspatal
place: स्कूल *school, पार्क *park, स्टेशन *station, कॉलेज *college, होटल *hotel
workplace: अस्पताल aspatal, दुकान dukaan, खेत khet, ऑफ़िस *office, बैंक *bank
workplace: फ़ैक्टरी *factory
field: मैदान maidan, गली gali, आँगन aangan, पार्क *park, क्लब *club
city: दिल्ली dilli, मुंबई mumbai, जयपुर jaipur, लखनऊ lucknow, पटना patna, भोपाल bhopal
city: आगरा agra, पुणे pune, शिमला shimla, नागपुर nagpur
vehicle: रिक्शे rikshe, नाव naav, बस *bus, ट्रेन *train, कार *car, टैक्सी *taxi, ऑटो *auto
vehicle: मेट्रो *metro
past: कल kal, आज aaj, परसों parson, सुबह subah, शाम_को shaam_ko, पिछले_हफ़्ते pichhle_hafte
past: रविवार_को ravivar_ko
future: कल kal, परसों parson, अगले_हफ़्ते agle_hafte, अगले_महीने agle_mahine
future: आज_शाम aaj_shaam, सोमवार_को somvar_ko
habit: रोज़ roz, हमेशा hamesha, अक्सर aksar, कभी_कभी kabhi_kabhi, हर_शाम har_shaam
habit: शनिवार_को shanivar_ko
hour: पाँच paanch, छह chhah, सात saat, आठ aath, नौ nau, दस das
number: दो do, तीन teen, चार chaar, पाँच paanch, छह chhah
price: बीस bees, पचास pachaas, सौ sau, दो_सौ do_sau, पाँच_सौ paanch_sau, हज़ार hazaar
job: किसान kisan, वकील vakeel, लेखक lekhak, डॉक्टर *doctor, इंजीनियर *engineer, पायलट *pilot
job: ड्राइवर *driver
mood: खुश khush, उदास udaas, बीमार beemar, व्यस्त vyast, नाराज़ naraaz, परेशान pareshan
game: कबड्डी kabaddi, शतरंज shatranj, क्रिकेट *cricket, फ़ुटबॉल *football, हॉकी *hockey
game: बैडमिंटन *badminton
hobby: गाना_गाना gaana_gaana, चित्र_बनाना chitra_banana, पतंग_उड़ाना patang_udaana
hobby: कहानियाँ_पढ़ना kahaniyan_padhna, नदी_में_तैरना nadi_mein_tairna
season: गरमियों garmiyon, सर्दियों sardiyon, बरसात barsaat, मार्च *march, दिसंबर *december
climate: सुहाना suhana, अच्छा achha, ठंडा thanda, खराब kharab
festival: दिवाली diwali, होली holi, ईद eid, राखी rakhi
language: मराठी marathi, पंजाबी punjabi, तमिल tamil, बंगाली bangali, गुजराती gujarati
crop: गेहूँ gehun, धान dhaan, मक्का makka, गन्ना ganna
""")

# Ending in -a they agree (achha, achhi, achhe); the others stay as they are.
ADJECTIVES = _slots("""
quality: पुराना purana, बड़ा bada, छोटा chhota, सस्ता sasta, महँगा mehnga, सुंदर sundar
quality: लाल laal
taste: मीठा meetha, ठंडा thanda, बढ़िया badhiya, ताज़ा taaza, स्वादिष्ट swadisht
nature: अच्छा achha, लंबा lamba, भोला bhola, समझदार samajhdar, ईमानदार imaandar
""")
UNCHANGED = {"बढ़िया"}  # in spite of its ending

# stem; perfective ms fs mp fp where it is not stem + a, i, e, in
VERBS: dict[str, tuple[Forms, tuple[Forms, ...]]] = {
    line.split()[0]: (forms(*line.split()[1:3]), tuple(forms(*cell.split("=")) for cell in line.split()[3:]))
    for line in """
go जा ja गया=gaya गई=gayi गए=gaye गईं=gayin
come आ aa आया=aaya आई=aayi आए=aaye आईं=aayin
eat खा kha खाया=khaya खाई=khayi खाए=khaye खाईं=khayin
drink पी pee पिया=piya पी=pee पिए=piye पीं=peen
make बना bana बनाया=banaya बनाई=banayi बनाए=banaye बनाईं=banayin
teach पढ़ा padha पढ़ाया=padhaya पढ़ाई=padhayi पढ़ाए=padhaye पढ़ाईं=padhayin
do कर kar किया=kiya की=ki किए=kiye कीं=keen
give दे de दिया=diya दी=di दिए=diye दीं=deen
buy खरीद khareed
read पढ़ padh
see देख dekh
live रह reh
speak बोल bol
play खेल khel
reach पहुँच pahunch
wake उठ uth
sleep सो so
ask पूछ poochh
put डाल daal
find मिल mil
sing गा ga
become हो ho
""".strip().splitlines()
}

# What frames say literally, beside the slots.
LITERALS: dict[str, Forms] = {
    line.split()[0]: forms(*line.split())
    for line in """
में mein
से se
को ko
का ka
की ki
के ke
तक tak
पर par
ने ne
पास paas
साथ saath
नहीं nahin
बहुत bahut
एक ek
यह yeh
यहाँ yahan
हम hum
है hai
हैं hain
थी thi
क्या kya
कब kab
कहाँ kahan
कितना kitna
रुपये rupaye
घंटे ghante
बजे baje
कीमत keemat
चाहिए chahiye
पसंद pasand
अच्छा achha
लगता lagta
लगते lagte
परीक्षा pareeksha
होगी hogi
पास_हो paas_ho
सवाल sawaal
रहता rehta
जन्मदिन janmdin
कहानी kahani
सुनाई sunai
बताई batai
दुकानदार dukandar
तेज़ tez
हवा hawa
चल chal
रहा raha
रही rahi
कारण kaaran
नमक namak
कम kam
चीनी cheeni
मौसम mausam
खरीदा khareeda
देखा dekha
देखने dekhne
भेजा bheja
रुकती rukti
गाना gaana
काम kaam
मदद madad
छूट chhoot
भीड़ bheed
किसान kisan
खेत khet
बो bo
दिन din
घर ghar
किराया kiraya
किताबें kitabein
आज aaj
जाएगी jayegi
आएगी aayegi
स्कूल *school
टीचर *teacher
लाइब्रेरी *library
फ़ोन *phone
नंबर *number
ट्रेन *train
बस *bus
लेट *late
टिकट *ticket
मैच *match
फ़िल्म *film
मीटिंग *meeting
ईमेल *email
ऑफ़िस *office
ऑनलाइन *online
बर्थडे *birthday
टैक्सी *taxi
होटल *hotel
""".strip().splitlines()
}
